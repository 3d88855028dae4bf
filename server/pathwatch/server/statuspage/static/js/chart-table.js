// @ts-check
// The numbers behind a chart as a table, made only when somebody opens it.

import { h } from "./dom.js";

/** @typedef {import("./chart.js").Line} Line */

export class ChartTable {
  /** @param {string} title */
  constructor(title) {
    this._title = title;
    /** @type {Line[]} */
    this._lines = [];
    this._scroll = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": `${title}: data table` });
    this.element = h("details", { class: "data-table", toggle: () => this._show() }, h("summary", {}, "Data table"), this._scroll);
  }

  /** @param {Line[]} lines */
  update(lines) {
    this._lines = lines;
    this._show();
  }

  _show() {
    if (!(/** @type {HTMLDetailsElement} */ (this.element).open)) {
      this._scroll.replaceChildren();
      return;
    }
    const values = this._lines.map((line) => new Map(line.steps.map((step, index) => [step, line.values[index] ?? null])));
    const steps = [...new Set(this._lines.flatMap((line) => line.steps))].sort((a, b) => b - a);
    this._scroll.replaceChildren(
      h(
        "table",
        { class: "plain numbers" },
        h("caption", {}, `${this._title}, newest first`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Step"), ...this._lines.map((line) => h("th", { scope: "col" }, line.label)))),
        h(
          "tbody",
          {},
          ...steps.map((step) =>
            h("tr", { "data-step": step }, h("th", { scope: "row" }, String(step)), ...values.map((column) => h("td", {}, cellText(column.get(step) ?? null)))),
          ),
        ),
      ),
    );
  }
}

/** @param {number | null} value */
function cellText(value) {
  return value === null ? "–" : String(Number(value.toPrecision(6)));
}
