// @ts-check
// Two runs on common axes.

import { get } from "./api.js";
import { changingAction, phaseBadge } from "./badges.js";
import { Chart } from "./chart.js";
import { h, setAttribute, setStep, setText } from "./dom.js";
import { hasNumbers, lineData } from "./lines.js";
import { Series } from "./series.js";
import { DEFAULT_METRICS, metricWords } from "./words.js";

const POINTS = 600;
const METRICS = DEFAULT_METRICS.flatMap((metric) => [metric, metricWords(metric).stderr ?? metric]).filter((name, index, all) => all.indexOf(name) === index);
const STYLES = [
  { colour: "--line-0", dash: [] },
  { colour: "--line-1", dash: [7, 4] },
];

/** @type {import("./router.js").Open} */
export function openCompare(root, shell, a = "", b = "") {
  const page = new ComparePage(root, a, b);
  shell.setTitle(`${a} and ${b}`);
  const stop = shell.watch(
    (signal) => page.refresh(signal),
    (error) => page.showMissing(error.message),
  );
  return () => {
    stop();
    page.destroy();
  };
}

class ComparePage {
  /** @param {HTMLElement} root @param {string} a @param {string} b */
  constructor(root, a, b) {
    this._sides = [a, b].map((name, index) => new Side(name, index));
    /** @type {Map<string, Chart>} */
    this._charts = new Map();
    this._frame = 0;
    this._group = /** @type {HTMLSelectElement} */ (h("select", { id: "compare-group", "data-action": "compare-group", change: () => this._show() }));
    this._missing = h("p", { class: "card empty", hidden: true });
    this._note = h("p", { class: "muted small" });
    this._grid = h("div", { class: "chart-grid" });
    this._content = h(
      "div",
      { class: "run-content" },
      h("div", { class: "sides" }, ...this._sides.map((side) => side.element)),
      h(
        "section",
        { "aria-labelledby": "compare-title" },
        h(
          "div",
          { class: "section-head" },
          h("h2", { id: "compare-title" }, "Metrics"),
          h("div", { class: "field" }, h("label", { for: "compare-group" }, "Group"), this._group),
        ),
        this._note,
        this._grid,
      ),
    );
    root.append(
      h(
        "div",
        { class: "page-head" },
        h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/" }, "All runs")), h("h1", { tabindex: "-1" }, "Two runs compared")),
      ),
      this._missing,
      this._content,
    );
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    for (const chart of this._charts.values()) chart.destroy();
  }

  /** @param {string} message */
  showMissing(message) {
    this._missing.hidden = false;
    this._missing.textContent = message;
    this._content.hidden = true;
  }

  /** @param {AbortSignal} signal */
  async refresh(signal) {
    const changed = await Promise.all(this._sides.map((side) => side.refresh(signal)));
    this._missing.hidden = true;
    this._content.hidden = false;
    if (changed.some(Boolean)) this._show();
  }

  _show() {
    this._offerGroups();
    const group = this._group.value;
    const columns = this._sides.map((side) => side.series.groups[group]);
    for (const [index, side] of this._sides.entries()) side.showGroup(group, columns[index]);
    const drawn = DEFAULT_METRICS.filter((metric) => columns.some((each) => hasNumbers(each?.metrics[metric] ?? [])));
    for (const [metric, chart] of this._charts)
      if (!drawn.includes(metric)) {
        chart.destroy();
        this._charts.delete(metric);
      }
    const lacking = this._sides.filter((_, index) => columns[index] === undefined).map((side) => side.name);
    setText(this._note, lacking.length > 0 && group !== "" ? `${lacking.join(" and ")} has no group of this name.` : "Bands: 95 % intervals. Drag to zoom, double-click to see all.");
    cancelAnimationFrame(this._frame);
    this._drawNext(drawn, columns);
  }

  /** @param {string[]} metrics @param {(import("./series.js").Columns | undefined)[]} columns */
  _drawNext([metric, ...others], columns) {
    if (metric === undefined) return;
    const { title, unit, stderr, range } = metricWords(metric);
    let chart = this._charts.get(metric);
    if (chart === undefined) {
      const help = this._sides[0]?.help[metric] ?? "";
      chart = new Chart({ metric, title, unit, help, range, together: "compare" });
      this._charts.set(metric, chart);
      const order = DEFAULT_METRICS.filter((name) => this._charts.has(name));
      this._grid.insertBefore(chart.element, this._grid.children[order.indexOf(metric)] ?? null);
    }
    const lines = this._sides.flatMap((side, index) => {
      const own = columns[index];
      const style = STYLES[index];
      return own && style ? [{ key: String(index), label: side.name, ...style, ...lineData(own, metric, stderr) }] : [];
    });
    chart.draw({ lines, marks: [], phases: [] });
    if (others.length > 0) this._frame = requestAnimationFrame(() => this._drawNext(others, columns));
  }

  /** Groups of both runs first. */
  _offerGroups() {
    const [a, b] = this._sides.map((side) => Object.keys(side.series.groups).sort());
    const common = (a ?? []).filter((name) => b?.includes(name));
    const names = [...common, ...[...(a ?? []), ...(b ?? [])].filter((name) => !common.includes(name))];
    if (names.join("\n") === this._group.dataset.names) return;
    const chosen = this._group.value;
    this._group.dataset.names = names.join("\n");
    this._group.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) this._group.value = chosen;
  }
}

/** One of the two runs. */
class Side {
  /** @param {string} name @param {number} index */
  constructor(name, index) {
    this.name = name;
    this.series = new Series();
    /** @type {Record<string, string>} */
    this.help = {};
    this._path = `runs/${encodeURIComponent(name)}`;
    this._created = "";
    this._action = changingAction({ "data-field": "action" });
    this._stop = h("span", { "data-field": "stop-at-step" });
    this._stopPart = h("span", {}, " at step ", this._stop);
    this._reason = h("p", { class: "muted", "data-field": "reason" });
    this._step = h("span", { "data-field": "step" });
    this._best = h("span", { "data-field": "best-checkpoint" });
    this._phase = h("dd", {});
    const swatch = h("span", { class: "swatch", "data-dash": (STYLES[index]?.dash.length ?? 0) > 0 });
    swatch.style.color = `var(${STYLES[index]?.colour})`;
    this.element = h(
      "section",
      { class: "card side", "data-run": name },
      h("h2", {}, swatch, h("a", { href: `#/runs/${encodeURIComponent(name)}` }, name)),
      h("p", {}, this._action.element, this._stopPart),
      this._reason,
      h("dl", { class: "stats" }, h("div", {}, h("dt", {}, "Step"), h("dd", {}, this._step)), h("div", {}, h("dt", {}, "Best checkpoint"), h("dd", {}, this._best)), h("div", {}, h("dt", {}, "Phase of the group"), this._phase)),
    );
  }

  /** @param {AbortSignal} signal @returns {Promise<boolean>} whether there are other windows now */
  async refresh(signal) {
    const run = await get(this._path, {}, signal);
    this.help = run.metric_help;
    this._action.set(run.action);
    setStep(this._stop, run.stop_at_step, "");
    this._stopPart.hidden = run.stop_at_step === null;
    setText(this._reason, run.reason);
    setStep(this._step, run.step < 0 ? null : run.step);
    setStep(this._best, run.best_checkpoint_step, "none yet");
    if (run.created_at === this._created && this.series.continues(run) && run.closed_step === this.series.closedStep) return false;
    const answer = await get(`${this._path}/series`, { points: POINTS, metrics: METRICS.join(",") }, signal);
    this.series.replace(answer);
    this._created = run.created_at;
    return true;
  }

  /** @param {string} group @param {import("./series.js").Columns | undefined} columns */
  showGroup(group, columns) {
    setAttribute(this.element, "data-group", group);
    const phase = columns?.phase.at(-1);
    this._phase.replaceChildren(phase === undefined ? "–" : phaseBadge(phase, { "data-field": "phase" }));
  }
}
