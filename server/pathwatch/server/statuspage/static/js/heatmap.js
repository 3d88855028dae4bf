// @ts-check
// Path distance by layer and step.

import { h, setAttribute, setText } from "./dom.js";
import { axisStep, number, ticks } from "./format.js";
import { RAMP, rampColour } from "./ramp.js";
import { colour, onThemeChange } from "./theme.js";

const FONT = "11px system-ui, sans-serif";
const LEFT = 44;
const BOTTOM = 26;
const TOP = 4;
const RIGHT = 12;
const LAYER_PX = 14;
const LARGEST_HEIGHT = 420;
const SMALLEST_HEIGHT = 120;

/** @typedef {{group: string, layers: number, step: number[], distance: (number | null)[][]}} Layers */

export class HeatMap {
  constructor() {
    /** @type {Layers} */
    this._data = { group: "", layers: 0, step: [], distance: [] };
    this._range = { low: 0, high: 1 };
    this._at = { column: -1, layer: 0 };
    this._canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { "aria-hidden": "true" }));
    this._readout = h("p", { class: "heat-readout" });
    this._low = h("span", {});
    this._high = h("span", {});
    this._frame = h(
      "div",
      {
        class: "chart-frame",
        tabindex: "0",
        role: "group",
        "aria-label": "Path distance by layer and step: arrow keys read the values",
        keydown: (/** @type {Event} */ event) => this._onKey(/** @type {KeyboardEvent} */ (event)),
        blur: () => this._readout.removeAttribute("aria-live"),
        pointermove: (/** @type {Event} */ event) => this._onPointer(/** @type {PointerEvent} */ (event)),
        pointerleave: () => this._select(-1, 0),
      },
      this._canvas,
    );
    this._table = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Path distance by layer: data table" });
    this._details = h("details", { class: "data-table", toggle: () => this._showTable() }, h("summary", {}, "Data table"), this._table);
    this.element = h(
      "figure",
      { class: "chart card", "data-chart": "layers" },
      h(
        "figcaption",
        {},
        h("h3", {}, "Path distance by layer", h("span", { class: "unit" }, "edits")),
        h("p", { class: "chart-help" }, "How differently the samples of the group are routed in each layer; dark = alike."),
      ),
      h("div", { class: "heat-legend" }, h("span", { class: "heat-scale", "aria-hidden": "true" }, this._low, h("span", { class: "heat-ramp" }), this._high), this._readout),
      this._frame,
      this._details,
    );
    /** @type {HTMLElement} */ (this.element.querySelector(".heat-ramp")).style.background = `linear-gradient(to right, ${RAMP.join(", ")})`;
    this._resizer = new ResizeObserver(() => this._draw());
    this._resizer.observe(this._frame);
    this._unlisten = onThemeChange(() => this._draw());
  }

  destroy() {
    this._unlisten();
    this._resizer.disconnect();
  }

  /** @param {Layers} data */
  update(data) {
    this._data = data;
    let [low, high] = [Infinity, -Infinity];
    let drawn = 0;
    for (const column of data.distance)
      for (const value of column) {
        if (value === null) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
        drawn += 1;
      }
    this._range = drawn > 0 ? { low, high } : { low: 0, high: 1 };
    setText(this._low, number(this._range.low));
    setText(this._high, number(this._range.high));
    this._draw();
    setAttribute(this.element, "data-points", String(drawn));
    this._showTable();
  }

  _draw() {
    const { step, distance, layers } = this._data;
    const width = this._frame.clientWidth;
    if (width === 0 || step.length === 0) return;
    const height = Math.min(LARGEST_HEIGHT, Math.max(SMALLEST_HEIGHT, layers * LAYER_PX)) + BOTTOM + TOP;
    const ratio = devicePixelRatio;
    this._canvas.width = Math.round(width * ratio);
    this._canvas.height = Math.round(height * ratio);
    this._canvas.style.height = `${height}px`;
    const context = /** @type {CanvasRenderingContext2D} */ (this._canvas.getContext("2d"));
    context.scale(ratio, ratio);
    const room = this._room();
    distance.forEach((column, index) => {
      const from = LEFT + index * room.cellWidth;
      column.forEach((value, layer) => {
        if (value === null) return;
        context.fillStyle = rampColour((value - this._range.low) / (this._range.high - this._range.low || 1));
        context.fillRect(from, TOP + layer * room.cellHeight, room.cellWidth + 0.5, room.cellHeight + 0.5);
      });
    });
    this._drawAxes(context, room, height);
    this._drawSelection(context, room);
  }

  /** @param {CanvasRenderingContext2D} context @param {{cellWidth: number, cellHeight: number}} room @param {number} height */
  _drawAxes(context, room, height) {
    const { step, layers } = this._data;
    context.fillStyle = colour("--text-muted");
    context.font = FONT;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const layer of ticks(0, layers - 1, Math.min(layers - 1, 8)).filter(Number.isInteger))
      context.fillText(String(layer), LEFT - 8, TOP + (layer + 0.5) * room.cellHeight);
    context.save();
    context.translate(9, TOP + (layers * room.cellHeight) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText("layer", 0, 0);
    context.restore();
    const shown = Math.max(2, Math.floor((room.cellWidth * step.length) / 110));
    context.textAlign = "center";
    for (const tick of ticks(step[0] ?? 0, step.at(-1) ?? 0, shown)) {
      const index = step.findIndex((each) => each >= tick);
      context.fillText(axisStep(tick), LEFT + (index + 0.5) * room.cellWidth, height - BOTTOM / 2);
    }
  }

  /** @param {CanvasRenderingContext2D} context @param {{cellWidth: number, cellHeight: number}} room */
  _drawSelection(context, room) {
    if (this._at.column < 0) return;
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    context.strokeRect(LEFT + this._at.column * room.cellWidth, TOP + this._at.layer * room.cellHeight, Math.max(room.cellWidth, 3), room.cellHeight);
  }

  _room() {
    const { step, layers } = this._data;
    const height = Math.min(LARGEST_HEIGHT, Math.max(SMALLEST_HEIGHT, layers * LAYER_PX));
    return { cellWidth: (this._frame.clientWidth - LEFT - RIGHT) / step.length, cellHeight: height / layers };
  }

  /** @param {PointerEvent} event */
  _onPointer(event) {
    const box = this._canvas.getBoundingClientRect();
    const room = this._room();
    const column = Math.floor((event.clientX - box.left - LEFT) / room.cellWidth);
    const layer = Math.floor((event.clientY - box.top - TOP) / room.cellHeight);
    const inside = column >= 0 && column < this._data.step.length && layer >= 0 && layer < this._data.layers;
    this._select(inside ? column : -1, layer);
  }

  /** @param {KeyboardEvent} event */
  _onKey(event) {
    const last = this._data.step.length - 1;
    if (last < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const { column, layer } = this._at.column < 0 ? { column: last, layer: 0 } : this._at;
    const stride = event.shiftKey ? 10 : 1;
    /** @type {Record<string, [number, number]>} */
    const targets = {
      ArrowLeft: [column - stride, layer],
      ArrowRight: [column + stride, layer],
      ArrowUp: [column, layer - 1],
      ArrowDown: [column, layer + 1],
      Home: [0, layer],
      End: [last, layer],
    };
    const target = targets[event.key];
    if (event.key === "Escape") this._select(-1, 0);
    else if (target === undefined) return;
    else {
      this._readout.setAttribute("aria-live", "polite");
      this._select(Math.min(last, Math.max(0, target[0])), Math.min(this._data.layers - 1, Math.max(0, target[1])));
    }
    event.preventDefault();
  }

  /** @param {number} column @param {number} layer */
  _select(column, layer) {
    if (column === this._at.column && layer === this._at.layer) return;
    this._at = { column, layer };
    const value = this._data.distance[column]?.[layer];
    setText(this._readout, column < 0 ? "" : `step ${this._data.step[column]}, layer ${layer}: ${number(value)} edits`);
    this._draw();
  }

  _showTable() {
    if (!(/** @type {HTMLDetailsElement} */ (this._details).open)) {
      this._table.replaceChildren();
      return;
    }
    const { step, distance, layers } = this._data;
    this._table.replaceChildren(
      h(
        "table",
        { class: "plain numbers" },
        h("caption", {}, `Path distance by layer, ${this._data.group}, newest first`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Step"), ...Array.from({ length: layers }, (_, layer) => h("th", { scope: "col" }, `Layer ${layer}`)))),
        h(
          "tbody",
          {},
          ...step
            .map((each, index) => h("tr", {}, h("th", { scope: "row" }, String(each)), ...(distance[index] ?? []).map((value) => h("td", {}, number(value)))))
            .reverse(),
        ),
      ),
    );
  }
}
