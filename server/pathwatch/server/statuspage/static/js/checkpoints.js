// @ts-check
// Registered checkpoints, best first.

import { get } from "./api.js";
import { h, setText } from "./dom.js";
import { icon } from "./icons.js";

const SHOWN = 10;

/** @typedef {{step: number, attempt: number, tag: string, reason: string}} Checkpoint */

export class Checkpoints {
  /** @param {string} run @param {() => void} onChoice called when another group is wanted */
  constructor(run, onChoice) {
    this._run = run;
    /** @type {Checkpoint[] | null} */
    this._checkpoints = null;
    this._all = false;
    this._select = /** @type {HTMLSelectElement} */ (h("select", { id: "checkpoints-group", "data-action": "checkpoints-group", change: onChoice }));
    this._rows = h("tbody");
    this._empty = h("p", { class: "muted", hidden: true });
    this._table = h(
      "div",
      { class: "table-scroll tall", tabindex: "0", role: "region", "aria-label": "Checkpoints, best first", hidden: true },
      h(
        "table",
        { class: "plain" },
        h("caption", { class: "hidden" }, "Checkpoints, best first"),
        h("thead", {}, h("tr", {}, ...["", "Step", "Tag", "Why"].map((title) => (title ? h("th", { scope: "col" }, title) : h("td", {}))))),
        this._rows,
      ),
    );
    this._more = h("button", {
      type: "button",
      class: "button quiet",
      hidden: true,
      "data-action": "all-checkpoints",
      click: () => {
        this._all = true;
        this._show();
      },
    });
    this.element = h(
      "section",
      { class: "card", "aria-labelledby": "checkpoints-title" },
      h(
        "div",
        { class: "section-head" },
        h("h2", { id: "checkpoints-title" }, "Checkpoints"),
        h("div", { class: "field" }, h("label", { for: "checkpoints-group" }, "Best for"), this._select),
      ),
      this._empty,
      this._table,
      this._more,
    );
  }

  /** @param {any} run @param {AbortSignal} signal */
  async update(run, signal) {
    this._offer(run.groups.map((/** @type {any} */ group) => group.group));
    const group = this._select.value;
    /** @type {Record<string, string>} */
    const parameters = group === "" ? {} : { group };
    const answer = await get(`runs/${encodeURIComponent(this._run)}/checkpoints`, parameters, signal).catch((error) => {
      if (group === this._select.value) throw error; // else another group is wanted meanwhile
    });
    if (group !== this._select.value || answer.checkpoints === this._checkpoints) return;
    this._checkpoints = answer.checkpoints;
    this._show();
  }

  /** @param {string} message */
  showProblem(message) {
    this._checkpoints = null;
    this._show();
    setText(this._empty, message);
  }

  _show() {
    const all = this._checkpoints ?? [];
    const shown = this._all ? all : all.slice(0, SHOWN);
    this._empty.hidden = all.length > 0;
    setText(this._empty, "None yet. A registered checkpoint is listed once its step has been judged.");
    this._table.hidden = all.length === 0;
    this._rows.replaceChildren(...shown.map(row));
    this._more.hidden = shown.length === all.length;
    setText(this._more, `Show all ${all.length}`);
  }

  /** @param {string[]} names */
  _offer(names) {
    if (names.join("\n") === this._select.dataset.names) return;
    const chosen = this._select.value;
    this._select.dataset.names = names.join("\n");
    this._select.replaceChildren(h("option", { value: "" }, "all groups"), ...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) this._select.value = chosen;
  }
}

/** @param {Checkpoint} checkpoint @param {number} index */
function row(checkpoint, index) {
  const place = index === 0 ? h("span", { class: "badge small-badge", "data-tone": "CHECKPOINT" }, icon("CHECKPOINT"), h("span", {}, "best")) : String(index + 1);
  const attempt = checkpoint.attempt > 0 ? h("span", { class: "muted" }, ` attempt ${checkpoint.attempt}`) : null;
  return h(
    "tr",
    { "data-checkpoint": checkpoint.step },
    h("td", { class: "place" }, place),
    h("th", { scope: "row" }, String(checkpoint.step), attempt),
    h("td", { class: "tag" }, checkpoint.tag),
    h("td", { class: "why" }, checkpoint.reason),
  );
}
