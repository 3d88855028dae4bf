// @ts-check
// The charts of a run: one per metric, a line per group; which groups and which metrics is for the reader to say.

import { Chart } from "./chart.js";
import { h, setAttribute, setText } from "./dom.js";
import { hasNumbers, lineData, lineStyle } from "./lines.js";
import { phaseSegments } from "./series.js";
import { DEFAULT_METRICS, isError, metricWords } from "./words.js";

/**
 * @typedef {import("./series.js").Columns} Columns
 * @typedef {import("./timeline.js").Mark} Mark
 */

export class Charts {
  /** @param {() => void} onMetrics called when other metrics are wanted */
  constructor(onMetrics) {
    /** @type {Map<string, Chart>} */
    this._charts = new Map();
    /** @type {Set<string>} */
    this._hidden = new Set();
    this._chosen = new Set(DEFAULT_METRICS);
    /** @type {Record<string, Columns>} */
    this._groups = {};
    /** @type {Mark[]} */
    this._marks = [];
    /** @type {Record<string, string>} */
    this._help = {};
    this._onMetrics = onMetrics;
    this._frame = 0;
    this._stride = 1;
    this._legend = h("div", { class: "legend", role: "group", "aria-label": "Groups in the charts" });
    this._chooser = h("div", { class: "chooser-list" });
    this._grid = h("div", { class: "chart-grid" });
    this._absent = h("p", { class: "muted small" });
    this._hint = h("p", { class: "muted small" });
    this.element = h(
      "section",
      { "aria-labelledby": "charts-title", id: "charts" },
      h("div", { class: "section-head" }, h("h2", { id: "charts-title", tabindex: "-1" }, "Metrics")),
      h(
        "div",
        { class: "chart-tools" },
        this._legend,
        h("details", { class: "chooser" }, h("summary", { class: "button" }, "Choose metrics"), h("fieldset", { class: "card" }, h("legend", {}, "Metrics to draw"), this._chooser)),
      ),
      this._hint,
      this._grid,
      this._absent,
    );
  }

  /** Names that the charts need, with those of their errors. @returns {string[]} */
  get metrics() {
    return [...this._chosen].flatMap((metric) => [metric, metricWords(metric).stderr ?? metric]).filter((name, index, all) => all.indexOf(name) === index);
  }

  /** @param {Record<string, string>} help by metric @param {string[]} available */
  describe(help, available) {
    this._help = help;
    const names = [...new Set([...DEFAULT_METRICS, ...available])].filter((name) => !isError(name));
    if (this._chooser.dataset.names === names.join(" ")) return;
    this._chooser.dataset.names = names.join(" ");
    this._chooser.replaceChildren(...names.map((name) => this._choice(name)));
  }

  /** Draw this group and no other. @param {string} group */
  showOnly(group) {
    this._hidden = new Set(Object.keys(this._groups).filter((name) => name !== group));
    this._changed();
    document.getElementById("charts")?.scrollIntoView();
    document.getElementById("charts-title")?.focus({ preventScroll: true });
  }

  /** @param {import("./series.js").Series} series @param {Mark[]} marks */
  update(series, marks) {
    this._groups = series.groups;
    this._stride = series.stride;
    this._marks = marks;
    this._changed();
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    for (const chart of this._charts.values()) chart.destroy();
    this._charts.clear();
  }

  _changed() {
    this._showLegend();
    const drawn = [...this._chosen].filter((metric) => Object.values(this._groups).some((columns) => hasNumbers(columns.metrics[metric] ?? [])));
    const absent = [...this._chosen].filter((metric) => !drawn.includes(metric));
    for (const [metric, chart] of this._charts)
      if (!drawn.includes(metric)) {
        chart.destroy();
        this._charts.delete(metric);
      }
    this._absent.hidden = absent.length === 0;
    setText(this._absent, `Not computed for this run: ${absent.map((metric) => metricWords(metric).title.toLowerCase()).join(", ")}.`);
    cancelAnimationFrame(this._frame);
    this._drawNext([...drawn.filter((metric) => this._isOnScreen(metric)), ...drawn.filter((metric) => !this._isOnScreen(metric))]);
  }

  /** @param {string} metric */
  _isOnScreen(metric) {
    const box = this._charts.get(metric)?.element.getBoundingClientRect();
    return box !== undefined && box.bottom > 0 && box.top < innerHeight;
  }

  /** One chart at a time, so that the page stays responsive. @param {string[]} metrics */
  _drawNext(metrics) {
    const [metric, ...others] = metrics;
    if (metric === undefined) return;
    this._draw(metric);
    if (others.length > 0) this._frame = requestAnimationFrame(() => this._drawNext(others));
  }

  /** @param {string} metric */
  _draw(metric) {
    const { title, unit, stderr, range } = metricWords(metric);
    let chart = this._charts.get(metric);
    if (chart === undefined) {
      chart = new Chart({ metric, title, unit, help: this._help[metric] ?? "", range, together: "run" });
      this._charts.set(metric, chart);
      const order = [...this._chosen].filter((name) => this._charts.has(name));
      this._grid.insertBefore(chart.element, this._grid.children[order.indexOf(metric)] ?? null);
    }
    const names = Object.keys(this._groups).sort();
    const shown = names.filter((name) => !this._hidden.has(name));
    const lines = shown.map((name) => ({
      key: name,
      label: name,
      ...lineStyle(names.indexOf(name)),
      ...lineData(/** @type {Columns} */ (this._groups[name]), metric, stderr),
    }));
    const only = shown.length === 1 ? this._groups[shown[0] ?? ""] : undefined;
    chart.draw({ lines, marks: this._marks, phases: only ? phaseSegments(only) : [] });
  }

  _showLegend() {
    const names = Object.keys(this._groups).sort();
    const shown = names.filter((name) => !this._hidden.has(name));
    if (this._legend.dataset.names !== names.join("\n")) {
      this._legend.dataset.names = names.join("\n");
      this._legend.replaceChildren(...names.map((name, index) => this._legendButton(name, index)), this._allButton());
    }
    names.forEach((name, index) => {
      const button = this._legend.children[index];
      if (button) setAttribute(button, "aria-pressed", String(!this._hidden.has(name)));
    });
    const all = /** @type {HTMLElement} */ (this._legend.lastElementChild);
    all.hidden = this._hidden.size === 0;
    this._hint.hidden = names.length === 0;
    const thinned = this._stride > 1 ? ` One window of about ${this._stride} is drawn, and every change of phase.` : "";
    setText(
      this._hint,
      `${shown.length === 1 ? `Shaded: the phases of ${shown[0]}.` : "With one group alone its phases are shaded."} Bands: 95 % intervals. Drag to zoom, double-click to see all.${thinned}`,
    );
  }

  /** @param {string} group @param {number} index */
  _legendButton(group, index) {
    const style = lineStyle(index);
    const swatch = h("span", { class: "swatch", "data-dash": style.dash.length > 0 });
    swatch.style.color = `var(${style.colour})`;
    const toggle = () => {
      if (!this._hidden.delete(group)) this._hidden.add(group);
      this._changed();
    };
    return h("button", { type: "button", class: "button legend-button", "data-legend": group, "aria-pressed": "true", click: toggle }, swatch, group);
  }

  _allButton() {
    const all = () => {
      this._hidden.clear();
      this._changed();
    };
    return h("button", { type: "button", class: "button quiet", click: all }, "Show all");
  }

  /** @param {string} metric */
  _choice(metric) {
    const input = h("input", {
      type: "checkbox",
      value: metric,
      checked: this._chosen.has(metric),
      change: () => {
        if (!this._chosen.delete(metric)) this._chosen.add(metric);
        this._changed();
        this._onMetrics();
      },
    });
    return h("label", { class: "choice", title: this._help[metric] ?? null }, input, metricWords(metric).title);
  }
}
