// @ts-check
// A card for each group: its phase, since when, why.

import { changingPhase } from "./badges.js";
import { h, keyed, setAttribute, setStep, setText } from "./dom.js";
import { interval, number, percent } from "./format.js";
import { PHASES } from "./words.js";

/**
 * @typedef {{group: string, phase: string, since_step: number | null, reason: string, evidence: Record<string, number>,
 *   best_checkpoint_step: number | null,
 *   window: {step: number, partial: boolean, metrics: Record<string, number>} | null}} Group
 */

export class Groups {
  /** @param {(group: string) => void} onSelect asked to show this group alone in the charts */
  constructor(onSelect) {
    const cards = h("div", { class: "group-cards" });
    this._empty = h("p", { class: "card empty muted", hidden: true }, "No group has sent data yet.");
    this._stale = false;
    this._set = keyed(
      cards,
      (/** @type {Group} */ group) => group.group,
      (group) => new Card(group.group, onSelect),
      (card, group) => card.update(group, this._stale),
    );
    this.element = h(
      "section",
      { "aria-labelledby": "groups-title" },
      h("div", { class: "section-head" }, h("h2", { id: "groups-title" }, "Groups")),
      this._empty,
      cards,
    );
  }

  /** @param {Group[]} groups @param {boolean} stale whether nobody knows how they stand now */
  update(groups, stale) {
    this._stale = stale;
    this._set(groups);
    this._empty.hidden = groups.length > 0;
  }
}

class Card {
  /** @param {string} group @param {(group: string) => void} onSelect */
  constructor(group, onSelect) {
    this._phase = changingPhase({ "data-field": "phase" });
    this._since = h("span", { "data-field": "since" });
    this._sinceLine = h("p", { class: "group-since" }, "since step ", this._since);
    this._meaning = h("p", { class: "group-meaning" });
    this._reason = h("p", { class: "group-reason" });
    this._memorized = h("span", {});
    this._bar = h("span", { class: "bar-fill" });
    this._memorizedPart = stat("Memorized", this._memorized, h("span", { class: "bar", "aria-hidden": "true" }, this._bar));
    this._distance = h("span", {});
    this._best = h("span", {});
    this._window = h("span", {});
    this._partial = h("span", { class: "problem" }, " partial");
    this._evidence = h("tbody");
    this._shownEvidence = "";
    this._details = h(
      "details",
      { class: "evidence" },
      h("summary", {}, "Evidence"),
      h(
        "table",
        { class: "plain" },
        h("caption", { class: "hidden" }, `Evidence behind the phase of ${group}`),
        h("thead", { class: "hidden" }, h("tr", {}, h("th", { scope: "col" }, "Number"), h("th", { scope: "col" }, "Value"))),
        this._evidence,
      ),
    );
    this.element = h(
      "article",
      { class: "group-card card", "data-group": group },
      h("div", { class: "group-head" }, h("h3", { class: "group-name" }, group), this._phase.element),
      this._sinceLine,
      this._meaning,
      this._reason,
      h(
        "dl",
        { class: "stats" },
        this._memorizedPart,
        stat("Path distance", this._distance),
        stat("Best checkpoint", this._best),
        stat("Newest window", this._window, this._partial),
      ),
      h(
        "div",
        { class: "group-foot" },
        this._details,
        h("button", { type: "button", class: "button quiet", "data-action": "only", click: () => onSelect(group) }, "Show alone in charts"),
      ),
    );
  }

  /** @param {Group} group @param {boolean} stale */
  update(group, stale) {
    const metrics = group.window?.metrics ?? {};
    this._phase.set(group.phase);
    setAttribute(this.element, "data-tone", group.phase);
    setStep(this._since, group.since_step);
    this._sinceLine.hidden = stale || group.since_step === null;
    setText(this._meaning, PHASES[group.phase] ?? "");
    setText(this._reason, group.reason);
    setText(this._memorized, percent(metrics.memorized_ratio));
    this._bar.style.width = `${100 * (metrics.memorized_ratio ?? 0)}%`;
    setText(this._distance, withError(metrics.path_distance, metrics.path_distance_stderr));
    setStep(this._best, group.best_checkpoint_step, "none yet");
    setStep(this._window, group.window?.step ?? null, "none yet");
    this._partial.hidden = !group.window?.partial;
    this._showEvidence(group.evidence);
  }

  /** @param {Record<string, number>} evidence */
  _showEvidence(evidence) {
    const entries = Object.entries(evidence);
    const shown = JSON.stringify(entries);
    if (shown === this._shownEvidence) return;
    this._shownEvidence = shown;
    this._details.hidden = entries.length === 0;
    this._evidence.replaceChildren(
      ...entries.map(([name, value]) =>
        h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", {}, number(value))),
      ),
    );
  }
}

/** @param {string} term @param {...Node} content */
function stat(term, ...content) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, ...content));
}

/** @param {number | undefined} value @param {number | undefined} stderr */
function withError(value, stderr) {
  if (value === undefined) return "–";
  return stderr === undefined ? number(value) : interval(value, 1.96 * stderr);
}
