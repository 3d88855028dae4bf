// @ts-check
// What was decided when, and why.

import { phaseBadge } from "./badges.js";
import { h, setText } from "./dom.js";
import { date, number, plural, preciseDate } from "./format.js";
import { icon } from "./icons.js";

/**
 * @typedef {{revision: number, at: string, step: number, kind: "phase" | "action" | "checkpoint", group: string | null,
 *   before: string | number | null, after: string | number | null, reason: string | null,
 *   evidence: Record<string, number> | null, stop_at_step: number | null}} Event
 */

const SHOWN = 8;

export class Events {
  constructor() {
    /** @type {Event[]} */
    this._events = [];
    /** @type {string} */
    this._shown = "";
    this._all = false;
    this._list = h("ol", { class: "events" });
    this._empty = h("p", { class: "muted", hidden: true }, "Nothing has changed yet.");
    this._checkpoints = /** @type {HTMLInputElement} */ (h("input", { type: "checkbox", "data-action": "checkpoint-events", change: () => this._show() }));
    this._more = h("button", {
      type: "button",
      class: "button quiet",
      hidden: true,
      "data-action": "all-events",
      click: () => {
        this._all = true;
        this._show();
      },
    });
    this.element = h(
      "section",
      { class: "card", "aria-labelledby": "events-title" },
      h(
        "div",
        { class: "section-head" },
        h("h2", { id: "events-title" }, "Decisions"),
        h("label", { class: "choice" }, this._checkpoints, "with best checkpoints"),
      ),
      this._empty,
      this._list,
      this._more,
    );
  }

  /** @param {Event[]} events oldest first */
  update(events) {
    this._events = events;
    this._show();
  }

  _show() {
    const wanted = this._events.filter((event) => event.kind !== "checkpoint" || this._checkpoints.checked).reverse();
    const listed = this._all ? wanted : wanted.slice(0, SHOWN);
    const shown = `${this._checkpoints.checked} ${this._all} ${listed.length} ${listed[0]?.revision} ${listed[0]?.at} ${wanted.length}`;
    if (shown === this._shown) return;
    this._shown = shown;
    this._empty.hidden = wanted.length > 0;
    this._list.replaceChildren(...listed.map(item));
    this._more.hidden = listed.length === wanted.length;
    setText(this._more, `Show all ${wanted.length}`);
  }
}

/** @param {Event} event */
function item(event) {
  const tone = event.kind === "checkpoint" ? "CHECKPOINT" : String(event.after);
  return h(
    "li",
    { class: "event", "data-event": event.kind, "data-revision": event.revision, "data-tone": tone },
    h("span", { class: "event-symbol" }, icon(tone)),
    h(
      "div",
      { class: "event-words" },
      h("p", { class: "event-what" }, ...what(event)),
      event.reason ? h("p", { class: "event-why" }, event.reason) : null,
      h(
        "p",
        { class: "event-when" },
        `step ${event.step} · `,
        h("time", { datetime: event.at, title: preciseDate(event.at) }, date(event.at)),
      ),
      evidence(event),
    ),
  );
}

/** @param {Event} event @returns {(Node | string)[]} */
function what(event) {
  if (event.kind === "phase")
    return [h("strong", {}, event.group ?? ""), " is now ", phaseBadge(String(event.after)), h("span", { class: "muted" }, ` was ${event.before}`)];
  if (event.kind === "action") {
    const stop = event.stop_at_step === null ? "" : ` at step ${event.stop_at_step}`;
    return [h("strong", {}, `${event.after}${stop}`), h("span", { class: "muted" }, event.before === event.after ? "" : ` was ${event.before}`)];
  }
  const whose = event.group ? `Best checkpoint of ${event.group}` : "Best checkpoint";
  return [h("span", {}, `${whose}: `), h("strong", {}, event.after === null ? "none" : `step ${event.after}`), h("span", { class: "muted" }, event.before === null ? "" : ` was ${event.before}`)];
}

/** @param {Event} event */
function evidence(event) {
  const entries = Object.entries(event.evidence ?? {});
  if (entries.length === 0) return null;
  return h(
    "details",
    { class: "evidence" },
    h("summary", {}, `Evidence: ${plural(entries.length, "number")}`),
    h("dl", { class: "evidence-list" }, ...entries.map(([name, value]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, number(value))))),
  );
}
