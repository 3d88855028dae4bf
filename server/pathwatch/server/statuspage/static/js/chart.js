// @ts-check
// One metric over the steps of a run, one line per group, drawn by uPlot.

import { ChartTable } from "./chart-table.js";
import { h, setAttribute, setText } from "./dom.js";
import { axisStep, interval, number } from "./format.js";
import { colour, onThemeChange } from "./theme.js";

/**
 * @typedef {{key: string, label: string, colour: string, dash: number[], steps: number[],
 *   values: (number | null)[], errors: (number | null)[] | null}} Line `colour` names a custom property
 * @typedef {{lines: Line[], marks: import("./timeline.js").Mark[], phases: {phase: string, from: number, until: number}[]}} Drawing
 * @typedef {{metric: string, title: string, unit: string, help: string, range?: [number, number] | undefined, together: string}} Description
 *   charts with the same `together` move their cursors and zoom together
 */

const HEIGHT = 220;
const FONT = "11px system-ui, sans-serif";
const CONFIDENCE = 1.96;
/** @type {any} */
const uPlot = /** @type {any} */ (globalThis).uPlot;

export class Chart {
  /** @param {Description} about */
  constructor(about) {
    this._about = about;
    /** @type {Drawing} */
    this._drawing = { lines: [], marks: [], phases: [] };
    this._plot = null;
    this._shape = "";
    this._cursor = null;
    this._readoutStep = h("span", { class: "readout-step" });
    this._readout = h("ul", { class: "readout" });
    this._table = new ChartTable(about.title);
    this._frame = h("div", {
      class: "chart-frame",
      tabindex: "0",
      role: "group",
      "aria-label": `${about.title}: left and right arrow keys read the values`,
      keydown: (/** @type {Event} */ event) => this._onKey(/** @type {KeyboardEvent} */ (event)),
      blur: () => this._readout.removeAttribute("aria-live"),
    });
    this.element = h(
      "figure",
      { class: "chart card", "data-chart": about.metric },
      h(
        "figcaption",
        {},
        h("h3", {}, about.title, about.unit ? h("span", { class: "unit" }, about.unit) : null),
        about.help ? h("p", { class: "chart-help" }, about.help) : null,
      ),
      h("div", { class: "readout-line" }, this._readoutStep, this._readout),
      this._frame,
      this._table.element,
    );
    this._resizer = new ResizeObserver(() => this._plot?.setSize(this._size()));
    this._resizer.observe(this._frame);
    this._unlisten = onThemeChange(() => this._rebuild());
  }

  /** Give everything back. */
  destroy() {
    this._unlisten();
    this._resizer.disconnect();
    this._plot?.destroy();
    this._plot = null;
    this.element.remove();
  }

  /** Draw; the element must be in the document. @param {Drawing} drawing */
  draw(drawing) {
    this._drawing = drawing;
    const shape = JSON.stringify(drawing.lines.map((line) => [line.key, line.label, line.colour, line.dash, line.errors !== null]));
    if (this._plot === null || shape !== this._shape) {
      this._shape = shape;
      this._rebuild();
    } else {
      const data = columns(drawing.lines);
      // Zoomed in on what is gone, as after a rewind: all is shown again.
      const stays = this._isZoomed() && this._plot.scales.x.min < (data[0].at(-1) ?? -Infinity);
      this._plot.setData(data, !stays);
      if (stays) this._plot.redraw(); // setData itself leaves the old picture there.
    }
    const drawn = drawing.lines.reduce((sum, line) => sum + line.values.filter((value) => value !== null).length, 0);
    setAttribute(this.element, "data-points", String(drawn));
    this._showReadout();
    this._table.update(drawing.lines);
  }

  _rebuild() {
    if (this._shape === "") return;
    this._plot?.destroy();
    this._plot = new uPlot(this._options(), columns(this._drawing.lines), this._frame);
    this._showReadout();
  }

  _size() {
    return { width: Math.max(120, this._frame.clientWidth), height: HEIGHT };
  }

  _isZoomed() {
    const { min, max } = this._plot.scales.x;
    const steps = this._plot.data[0];
    return min > steps[0] || max < steps[steps.length - 1];
  }

  _options() {
    const text = colour("--text-muted");
    const grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: text, font: FONT, grid, ticks: { ...grid, size: 4 }, gap: 6 };
    const range = this._about.range;
    return {
      ...this._size(),
      padding: [10, 22, 0, 4],
      scales: { x: { time: false }, y: range ? { range } : {} },
      series: [{}, ...this._drawing.lines.flatMap(seriesOf)],
      bands: bandsOf(this._drawing.lines),
      axes: [
        { ...axis, size: 28, values: (/** @type {any} */ _, /** @type {number[]} */ splits) => splits.map((each) => (Number.isInteger(each) ? axisStep(each) : "")) },
        { ...axis, size: yAxisSize, values: (/** @type {any} */ _, /** @type {number[]} */ splits) => splits.map(tickText(splits)) },
      ],
      legend: { show: false },
      cursor: { sync: { key: this._about.together, scales: ["x", null] }, points: { size: 7 }, y: false },
      hooks: {
        drawClear: [(/** @type {any} */ plot) => drawPhases(plot, this._drawing.phases)],
        draw: [(/** @type {any} */ plot) => drawMarks(plot, this._drawing.marks)],
        setCursor: [(/** @type {any} */ plot) => this._onCursor(plot.cursor.idx)],
      },
    };
  }

  /** @param {number | null | undefined} index */
  _onCursor(index) {
    this._cursor = index ?? null;
    this._showReadout();
  }

  _showReadout() {
    const steps = this._plot?.data[0] ?? [];
    const step = this._cursor === null ? null : steps[this._cursor];
    setText(this._readoutStep, step === null || step === undefined ? "newest" : `step ${step}`);
    const { lines } = this._drawing;
    if (this._readout.children.length !== lines.length || this._readout.dataset.shape !== this._shape) {
      this._readout.dataset.shape = this._shape;
      this._readout.replaceChildren(...lines.map(readoutItem));
    }
    lines.forEach((line, index) => {
      const value = /** @type {Element} */ (this._readout.children[index]?.lastElementChild);
      setText(value, valueAt(line, step ?? Infinity));
    });
  }

  /** @param {KeyboardEvent} event */
  _onKey(event) {
    if (this._plot === null || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this._plot.data[0].length - 1;
    const now = this._cursor ?? last;
    const stride = event.shiftKey ? 10 : 1;
    /** @type {Record<string, number>} */
    const targets = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: last };
    const target = targets[event.key];
    if (event.key === "Escape") this._plot.setCursor({ left: -10, top: -10 });
    else if (target === undefined || last < 0) return;
    else {
      this._readout.setAttribute("aria-live", "polite");
      const index = Math.min(last, Math.max(0, target));
      this._plot.setCursor({ left: this._plot.valToPos(this._plot.data[0][index], "x"), top: HEIGHT / 3 });
    }
    event.preventDefault();
  }
}

/** One table of numbers with all lines on common steps. @param {Line[]} lines */
function columns(lines) {
  if (lines.length === 0) return [[]];
  return uPlot.join(
    lines.map(({ steps, values, errors }) => {
      if (errors === null) return [steps, values];
      return [steps, values, shifted(values, errors, -CONFIDENCE), shifted(values, errors, CONFIDENCE)];
    }),
  );
}

/** @param {(number | null)[]} values @param {(number | null)[]} errors @param {number} factor */
function shifted(values, errors, factor) {
  return values.map((value, index) => {
    const error = errors[index] ?? null;
    return value === null || error === null ? null : value + factor * error;
  });
}

/** @param {Line} line */
function seriesOf(line) {
  const stroke = colour(line.colour);
  const main = { label: line.label, stroke, width: 1.75, dash: line.dash, points: { show: alone, size: 5, fill: stroke } };
  const edge = { stroke: "transparent", width: 0, points: { show: false } };
  return line.errors === null ? [main] : [main, edge, edge];
}

/** Points are drawn only while there are few. @param {any} plot @param {number} series */
function alone(plot, series) {
  return plot.data[series].length <= 30;
}

/** @param {Line[]} lines */
function bandsOf(lines) {
  const bands = [];
  let column = 1;
  for (const line of lines) {
    if (line.errors !== null) bands.push({ series: [column + 2, column + 1], fill: colour(line.colour, 0.16) });
    column += line.errors === null ? 1 : 3;
  }
  return bands;
}

/** @param {any} _ @param {string[] | null} labels */
function yAxisSize(_, labels) {
  return 16 + 6.4 * Math.max(3, ...(labels ?? []).map((label) => label.length));
}

/** @param {number[]} splits */
function tickText(splits) {
  const distance = Math.abs((splits[1] ?? 1) - (splits[0] ?? 0)) || 1;
  let digits = 0;
  while (digits < 6 && Math.abs(distance * 10 ** digits - Math.round(distance * 10 ** digits)) > 1e-6) digits += 1;
  return (/** @type {number} */ value) => (Math.abs(value) >= 1e5 || digits >= 6 ? value.toExponential(0) : value.toFixed(digits).replace("-", "−"));
}

/** @param {any} plot @param {Drawing["phases"]} phases */
function drawPhases(plot, phases) {
  const { left, top, width, height } = plot.bbox;
  plot.ctx.save();
  for (const { phase, from, until } of phases) {
    const start = Math.max(left, plot.valToPos(from, "x", true));
    const end = Math.min(left + width, plot.valToPos(until, "x", true));
    if (end <= start) continue;
    plot.ctx.fillStyle = colour(`--phase-${phase}`, 0.14);
    plot.ctx.fillRect(start, top, end - start, height);
  }
  plot.ctx.restore();
}

/** @param {any} plot @param {Drawing["marks"]} marks */
function drawMarks(plot, marks) {
  const { left, top, width, height } = plot.bbox;
  const ratio = devicePixelRatio;
  plot.ctx.save();
  plot.ctx.lineWidth = ratio;
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.step, "x", true)) + 0.5;
    if (x < left || x > left + width) continue;
    if (mark.kind === "BEST") {
      plot.ctx.fillStyle = colour("--mark-best");
      triangle(plot.ctx, x, top + height, -ratio);
      continue;
    }
    plot.ctx.strokeStyle = colour(`--action-${mark.kind}`, mark.kind === "STOP" ? 1 : 0.3);
    plot.ctx.fillStyle = colour(`--action-${mark.kind}`);
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, top);
    plot.ctx.lineTo(x, top + height);
    plot.ctx.stroke();
    triangle(plot.ctx, x, top, ratio);
  }
  plot.ctx.restore();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} base @param {number} size below 0 = it points up */
function triangle(context, x, base, size) {
  context.beginPath();
  context.moveTo(x - 4 * size, base);
  context.lineTo(x + 4 * size, base);
  context.lineTo(x, base + 6 * size);
  context.fill();
}

/** @param {Line} line */
function readoutItem(line) {
  const swatch = h("span", { class: "swatch", "data-dash": line.dash.length > 0 });
  swatch.style.color = `var(${line.colour})`;
  return h("li", {}, swatch, h("span", { class: "readout-name" }, line.label), " ", h("span", { class: "readout-value" }));
}

/** Newest value of a line up to a step. @param {Line} line @param {number} step */
function valueAt(line, step) {
  for (let index = line.steps.length - 1; index >= 0; index--) {
    if ((line.steps[index] ?? Infinity) > step) continue;
    const value = line.values[index] ?? null;
    const error = line.errors?.[index] ?? null;
    return error === null || value === null ? number(value) : interval(value, CONFIDENCE * error);
  }
  return "–";
}
