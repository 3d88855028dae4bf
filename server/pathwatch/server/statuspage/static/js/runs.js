// @ts-check
// The list of runs.

import { get } from "./api.js";
import { changingAction, phaseItems } from "./badges.js";
import { secondsSince } from "./clock.js";
import { h, keyed, setAttribute, setStep, setText } from "./dom.js";
import { ago, plural, preciseDate } from "./format.js";

/**
 * @typedef {{name: string, state: string, step: number, closed_step: number, created_at: string, updated_at: string,
 *   stale: boolean, action: string, stop_at_step: number | null, reason: string,
 *   best_checkpoint_step: number | null, groups: {group: string, phase: string}[]}} Summary
 */

const URGENCY = ["STOP", "CHECKPOINT", "CONTINUE"];

/** @type {{key: string, title: string, value: ((run: Summary) => string | number) | null}[]} */
const COLUMNS = [
  { key: "name", title: "Run", value: (run) => run.name },
  { key: "action", title: "Advice", value: (run) => URGENCY.indexOf(run.action) },
  { key: "reason", title: "Why", value: null },
  { key: "groups", title: "Groups", value: null },
  { key: "step", title: "Step", value: (run) => -run.step },
  { key: "best", title: "Best checkpoint", value: (run) => -(run.best_checkpoint_step ?? -1) },
  { key: "updated", title: "Last data", value: (run) => -Date.parse(run.updated_at) },
];

/** @type {import("./router.js").Open} */
export function openRuns(root, shell) {
  /** @type {Summary[]} */
  let runs = [];
  let sorted = { key: "", backwards: false };
  shell.setTitle("Runs");

  const count = h("p", { class: "muted", "data-field": "count" }, "Loading …");
  const filter = h("input", {
    type: "search",
    placeholder: "Filter by name, group or phase",
    "aria-label": "Filter runs",
    "data-action": "filter",
    input: () => show(),
  });
  const headers = COLUMNS.map((column) => columnHeader(column, () => sortBy(column.key)));
  const body = h("tbody", { role: "rowgroup" });
  const setRows = keyed(
    body,
    (/** @type {Summary} */ run) => run.name,
    () => new Row(),
    (row, run) => row.update(run),
  );
  const table = h(
    "table",
    { class: "runs", role: "table", "aria-label": "Runs" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...headers)),
    body,
  );
  const nothing = h("div", { class: "card empty", hidden: true });
  root.append(
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Runs"), count), filter),
    nothing,
    table,
  );

  /** @param {string} key */
  function sortBy(key) {
    sorted = sorted.key !== key ? { key, backwards: false } : sorted.backwards ? { key: "", backwards: false } : { key, backwards: true };
    headers.forEach((header, index) => {
      const is = COLUMNS[index]?.key === sorted.key;
      setAttribute(header, "aria-sort", is ? (sorted.backwards ? "descending" : "ascending") : null);
    });
    show();
  }

  function show() {
    const words = /** @type {HTMLInputElement} */ (filter).value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = runs.filter((run) => words.every((word) => searchText(run).includes(word)));
    const value = COLUMNS.find((column) => column.key === sorted.key)?.value;
    if (value) {
      shown.sort((a, b) => compare(value(a), value(b)));
      if (sorted.backwards) shown.reverse();
    }
    setRows(shown);
    setText(count, summary(runs, shown.length));
    table.hidden = shown.length === 0;
    nothing.hidden = shown.length > 0;
    nothing.replaceChildren(...(shown.length > 0 ? [] : emptiness(runs.length)));
  }

  const stop = shell.watch(
    async (signal) => {
      const answer = await get("runs", {}, signal);
      shell.setServer(answer.server_version);
      runs = answer.runs;
      show();
    },
    () => {},
  );
  return stop;
}

class Row {
  constructor() {
    this._name = h("a", { class: "run-name" });
    this._state = h("span", { "data-field": "state" });
    this._action = changingAction({ "data-field": "action" });
    this._stop = h("span", { "data-field": "stop-at-step" });
    this._stopLine = h("span", { class: "stop-line" }, "at step ", this._stop);
    this._reason = h("span", { class: "clamped", "data-field": "reason" });
    this._groups = h("ul", { class: "phase-list" });
    this._shownGroups = "";
    this._step = h("span", { "data-field": "step" });
    this._best = h("span", { "data-field": "best-checkpoint" });
    this._updated = h("span", { "data-field": "updated" });
    this._stale = h("span", { class: "problem block small" }, "stale");
    this.element = h(
      "tr",
      { role: "row" },
      h("th", { scope: "row", role: "rowheader" }, this._name, h("span", { class: "muted small block" }, this._state)),
      cell("Advice", this._action.element, this._stopLine),
      cell("Why", this._reason),
      cell("Groups", this._groups),
      cell("Step", this._step),
      cell("Best checkpoint", this._best),
      cell("Last data", this._updated, this._stale),
    );
  }

  /** @param {Summary} run */
  update(run) {
    setAttribute(this.element, "data-run", run.name);
    setText(this._name, run.name);
    setAttribute(this._name, "href", `#/runs/${encodeURIComponent(run.name)}`);
    setText(this._state, run.state);
    this._action.set(run.action);
    setStep(this._stop, run.stop_at_step, "");
    this._stopLine.hidden = run.stop_at_step === null;
    setText(this._reason, run.reason);
    setAttribute(this._reason, "title", run.reason);
    setStep(this._step, run.step < 0 ? null : run.step);
    setStep(this._best, run.best_checkpoint_step);
    setText(this._updated, ago(secondsSince(run.updated_at)));
    this._stale.hidden = !run.stale;
    setAttribute(this._updated, "title", preciseDate(run.updated_at));
    const groups = JSON.stringify(run.groups);
    if (groups !== this._shownGroups) this._groups.replaceChildren(...phaseItems(run.groups));
    this._shownGroups = groups;
  }
}

/** @param {string} label shown where the table is folded @param {...Node} content */
function cell(label, ...content) {
  return h("td", { role: "cell", "data-label": label }, ...content);
}

/** @param {{key: string, title: string, value: unknown}} column @param {() => void} sort */
function columnHeader(column, sort) {
  const properties = { scope: "col", role: "columnheader", "data-column": column.key };
  if (column.value === null) return h("th", properties, h("span", { class: "column-title" }, column.title));
  return h("th", properties, h("button", { type: "button", class: "sort", click: sort }, column.title));
}

/** @param {Summary} run */
function searchText(run) {
  const groups = run.groups.map((group) => `${group.group} ${group.phase}`).join(" ");
  return `${run.name} ${run.state} ${run.action} ${groups}${run.stale ? " stale" : ""}`.toLowerCase();
}

/** @param {Summary[]} runs @param {number} shown */
function summary(runs, shown) {
  if (runs.length === 0) return "None yet";
  const active = runs.filter((run) => run.state === "active").length;
  const stops = runs.filter((run) => run.state === "active" && run.action === "STOP").length;
  const stale = runs.filter((run) => run.stale).length;
  const parts = [`${plural(runs.length, "run")}, ${active} active`];
  if (stops) parts.push(`${stops} advised to stop`);
  if (stale) parts.push(`${stale} without fresh data`);
  if (shown < runs.length) parts.push(`${shown} shown`);
  return parts.join(" · ");
}

/** @param {number} runs */
function emptiness(runs) {
  if (runs > 0) return [h("p", {}, "No run matches the filter.")];
  return [
    h("p", {}, "No run has reported yet. A run appears here as soon as a training job creates it."),
    h("p", { class: "muted" }, "To see one now: ", h("code", {}, "pathwatch demo"), ", or ", h("code", {}, "pathwatch replay TRACE.npz --server HOST:PORT"), "."),
  ];
}

/** @param {string | number} a @param {string | number} b */
function compare(a, b) {
  if (typeof a === "string" && typeof b === "string") return a.localeCompare(b, undefined, { numeric: true });
  return Number(a) - Number(b);
}
