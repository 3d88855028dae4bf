// @ts-check
// What is advised, and why, in words.

import { phaseItems } from "./badges.js";
import { h, setAttribute, setStep, setText } from "./dom.js";
import { icon } from "./icons.js";
import { ACTIONS } from "./words.js";

export class Banner {
  constructor() {
    this._symbol = h("span", { class: "verdict-symbol" });
    this._action = h("span", { "data-field": "action" });
    this._stop = h("span", { "data-field": "stop-at-step" });
    this._stopPart = h("span", { class: "verdict-stop" }, " at step ", this._stop);
    this._meaning = h("p", { class: "verdict-meaning" });
    this._reason = h("span", { "data-field": "reason" });
    this._best = h("span", { "data-field": "best-checkpoint" });
    this._step = h("span", { "data-field": "step" });
    this._state = h("span", { "data-field": "state" });
    this._attempt = h("span", {});
    this._judged = h("span", {});
    this._phases = h("ul", { class: "phase-list verdict-phases" });
    this._shownGroups = "";
    this.element = h(
      "section",
      { class: "verdict card", "aria-labelledby": "verdict-title" },
      this._symbol,
      h(
        "div",
        { class: "verdict-words" },
        h("h2", { id: "verdict-title", class: "verdict-title" }, h("span", { class: "hidden" }, "Advice: "), this._action, this._stopPart),
        this._meaning,
        h("p", { class: "verdict-reason" }, h("span", { class: "label" }, "Why"), " ", this._reason),
        this._phases,
      ),
      h(
        "dl",
        { class: "facts" },
        fact("Best checkpoint", h("span", { class: "fact-lead" }, "step "), this._best),
        fact("Run", this._state, this._attempt),
        fact("Step", this._step),
        fact("Judged up to", this._judged),
      ),
    );
  }

  /** @param {any} run */
  update(run) {
    const tone = run.stale ? "STALE" : run.state === "finished" ? "FINISHED" : run.action;
    const symbol = run.stale ? "warn" : run.action;
    if (this._symbol.dataset.shown !== symbol) this._symbol.replaceChildren(icon(symbol));
    this._symbol.dataset.shown = symbol;
    setAttribute(this.element, "data-tone", tone);
    setText(this._action, run.action);
    setStep(this._stop, run.stop_at_step, "");
    this._stopPart.hidden = run.stop_at_step === null;
    setText(this._meaning, meaning(run));
    setText(this._reason, run.reason || "Nothing has been judged yet.");
    setStep(this._best, run.best_checkpoint_step, "none yet");
    const lead = /** @type {HTMLElement} */ (this._best.previousElementSibling);
    lead.hidden = run.best_checkpoint_step === null;
    setStep(this._step, run.step < 0 ? null : run.step, "none yet");
    setText(this._state, run.state);
    setText(this._attempt, run.attempt > 0 ? `, attempt ${run.attempt}` : "");
    setStep(this._judged, run.closed_step < 0 ? null : run.closed_step, "nothing yet");
    const groups = JSON.stringify(run.groups.map((/** @type {any} */ group) => [group.group, group.phase]));
    if (groups !== this._shownGroups) this._phases.replaceChildren(...phaseItems(run.groups));
    this._shownGroups = groups;
  }
}

/** @param {string} term @param {...Node} content */
function fact(term, ...content) {
  return h("div", {}, h("dt", {}, term), h("dd", {}, ...content));
}

/** @param {any} run */
function meaning(run) {
  if (run.state === "finished" && run.action !== "STOP") return "The run is finished; this was its last advice.";
  if (run.state === "finished") return "The run is finished: it was advised to end here.";
  if (run.stale) return "No fresh data: nothing can be judged, so nothing is asked for. Look at the data first.";
  return ACTIONS[run.action] ?? "";
}
