// @ts-check
// The phases of every group over the steps of the run, on one axis.

import { h, keyed } from "./dom.js";
import { axisStep, ticks } from "./format.js";
import { icon } from "./icons.js";
import { phaseSegments } from "./series.js";
import { PHASES } from "./words.js";

/**
 * @typedef {import("./series.js").Columns} Columns
 * @typedef {{step: number, kind: string, label: string}} Mark
 */

const SHOWN_TICKS = 7;

export class Timeline {
  constructor() {
    const rows = h("div", { class: "timeline-rows" });
    this._axis = h("div", { class: "timeline-axis", "aria-hidden": "true" });
    this._marks = h("div", { class: "timeline-marks", "aria-hidden": "true" });
    this._empty = h("p", { class: "muted", hidden: true }, "No window has been judged yet.");
    this._set = keyed(
      rows,
      (/** @type {{group: string, columns: Columns, place: (step: number) => number}} */ row) => row.group,
      (row) => new Row(row.group),
      (part, row) => part.update(row),
    );
    this.element = h(
      "section",
      { class: "timeline card", "data-chart": "phases", "aria-labelledby": "timeline-title" },
      h("h2", { id: "timeline-title" }, "Phases over time"),
      this._empty,
      h("div", { class: "timeline-body" }, rows, this._marks),
      this._axis,
      h("ul", { class: "phase-key", "aria-label": "Key" }, ...Object.entries(PHASES).map(([phase, meaning]) => keyItem(phase, meaning)), markItem("CHECKPOINT", "CHECKPOINT advised"), markItem("STOP", "STOP advised"), markItem("BEST", "best checkpoint")),
    );
  }

  /** @param {Record<string, Columns>} groups @param {Mark[]} marks */
  update(groups, marks) {
    const names = Object.keys(groups).sort();
    const steps = names.flatMap((name) => [groups[name]?.step[0] ?? Infinity, groups[name]?.step.at(-1) ?? -Infinity]);
    const low = Math.min(...steps);
    const high = Math.max(...steps);
    const has = Number.isFinite(low);
    this._empty.hidden = has;
    const place = (/** @type {number} */ step) => (high > low ? (step - low) / (high - low) : 0);
    this._set(has ? names.map((group) => ({ group, columns: /** @type {Columns} */ (groups[group]), place })) : []);
    this._axis.replaceChildren(
      ...(has ? ticks(low, high, SHOWN_TICKS) : []).map((tick) => placed(h("span", { class: place(tick) > 0.97 ? "tick last" : "tick" }, axisStep(tick)), place(tick))),
    );
    this._marks.replaceChildren(
      ...marks
        .filter((mark) => has && mark.step >= low && mark.step <= high)
        .map((mark) => placed(h("span", { class: "mark", "data-tone": mark.kind, title: mark.label }), place(mark.step))),
    );
  }
}

class Row {
  /** @param {string} group */
  constructor(group) {
    this._track = h("ol", { class: "track" });
    this._shown = "";
    this.element = h("div", { class: "timeline-row", "data-timeline": group }, h("h3", { class: "timeline-name", title: group }, group), this._track);
  }

  /** @param {{columns: Columns, place: (step: number) => number}} row */
  update({ columns, place }) {
    const segments = phaseSegments(columns);
    const shown = JSON.stringify(segments.map((segment) => [segment, place(segment.from), place(segment.until)]));
    if (shown === this._shown) return;
    this._shown = shown;
    this._track.replaceChildren(
      ...segments.map(({ phase, from, to, until }, index) => {
        const start = place(from);
        const end = index === segments.length - 1 ? Math.max(place(to), start + 0.004) : place(until);
        const words = `${phase}, step ${from} to ${to}`;
        const segment = h(
          "li",
          { class: "segment", "data-phase": phase, "data-tone": phase, "data-from": from, "data-to": to, title: `${words}. ${PHASES[phase] ?? ""}` },
          icon(phase),
          h("span", { class: "segment-name" }, phase),
          h("span", { class: "hidden" }, `, step ${from} to ${to}`),
        );
        segment.style.left = `${100 * start}%`;
        segment.style.width = `${100 * (end - start)}%`;
        return segment;
      }),
    );
  }
}

/** @param {HTMLElement} element @param {number} share of the way from left to right */
function placed(element, share) {
  element.style.left = `${100 * share}%`;
  return element;
}

/** @param {string} phase @param {string} meaning */
function keyItem(phase, meaning) {
  return h("li", { title: meaning }, h("span", { class: "badge small-badge", "data-tone": phase }, icon(phase), h("span", {}, phase)));
}

/** @param {string} kind @param {string} meaning */
function markItem(kind, meaning) {
  return h("li", { class: "mark-key", "data-tone": kind }, h("span", { class: "mark-head", "aria-hidden": "true" }), meaning);
}
