// @ts-check
// One run: what is advised and why, where its groups stand, whether that can be trusted, and how it came about.

import { ApiError, get } from "./api.js";
import { Banner } from "./banner.js";
import { Charts } from "./charts.js";
import { Checkpoints } from "./checkpoints.js";
import { h, setAttribute } from "./dom.js";
import { Events } from "./events.js";
import { Groups } from "./groups.js";
import { Health } from "./health.js";
import { LayersPanel } from "./layers.js";
import { Series } from "./series.js";
import { Settings } from "./settings.js";
import { Timeline } from "./timeline.js";

/** More than a chart has room for. */
const POINTS = 500;
/** Grown to this many times POINTS, the series are fetched anew and thinned. */
const GROWTH = 2;
/** Of phases and actions, and apart from them of best checkpoints, which change in most rounds: they push out no others. */
const LONGEST_HISTORY = 2000;
const LONGEST_CHECKPOINT_HISTORY = 500;

/** @type {import("./router.js").Open} */
export function openRun(root, shell, name = "") {
  const page = new RunPage(root, shell, name);
  const stop = shell.watch(
    (signal) => page.refresh(signal),
    () => page.showMissing(),
  );
  return () => {
    stop();
    page.destroy();
  };
}

class RunPage {
  /** @param {HTMLElement} root @param {import("./shell.js").Shell} shell @param {string} name */
  constructor(root, shell, name) {
    this._shell = shell;
    this._path = `runs/${encodeURIComponent(name)}`;
    this._name = name;
    this._series = new Series();
    this._seriesMetrics = "";
    this._created = "";
    /** @type {import("./events.js").Event[]} */
    this._history = [];
    this._verdict = "";
    /** @type {any} */
    this._run = null;
    /** Whether the other runs are there to be chosen. */
    this._offered = false;
    this._away = new AbortController();
    const again = () => void this._again();
    this._banner = new Banner();
    this._health = new Health();
    this._charts = new Charts(again);
    this._groups = new Groups((group) => this._charts.showOnly(group));
    this._timeline = new Timeline();
    this._layers = new LayersPanel(name, again);
    this._events = new Events();
    this._checkpoints = new Checkpoints(name, again);
    this._settings = new Settings();
    this._compare = h("select", { id: "compare", "data-action": "compare", change: () => this._openComparison() });
    this._missing = h("div", { class: "card empty", hidden: true }, h("p", {}, "There is no run of this name (any more)."), h("p", {}, h("a", { href: "#/" }, "All runs")));
    this._content = h(
      "div",
      { class: "run-content", hidden: true },
      this._banner.element,
      this._health.element,
      this._groups.element,
      this._timeline.element,
      this._charts.element,
      h("div", { class: "two-columns" }, this._events.element, this._checkpoints.element),
      this._layers.element,
      this._settings.element,
    );
    root.append(
      h(
        "div",
        { class: "page-head" },
        h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/" }, "All runs")), h("h1", { tabindex: "-1" }, name)),
        h("div", { class: "field" }, h("label", { for: "compare" }, "Compare with"), this._compare),
      ),
      this._missing,
      this._content,
    );
    shell.setTitle(name);
  }

  destroy() {
    this._away.abort();
    this._charts.destroy();
    this._layers.destroy();
  }

  showMissing() {
    this._missing.hidden = false;
    this._content.hidden = true;
    this._run = null;
    this._offered = false;
  }

  /** @param {AbortSignal} signal */
  async refresh(signal) {
    const run = await get(this._path, {}, signal);
    if (run.created_at !== this._created) this._startAnew(run.created_at);
    this._run = run;
    this._missing.hidden = true;
    this._content.hidden = false;
    this._banner.update(run);
    this._health.update(run);
    this._groups.update(run.groups, run.stale);
    this._settings.update(run);
    this._announce(run);
    this._charts.describe(run.metric_help, metricsOf(run));
    /** @type {ApiError[]} */
    const failed = [];
    const news = await Promise.all([
      unlessFailed(this._refreshSeries(run, signal), failed),
      unlessFailed(this._refreshHistory(run, signal), failed),
    ]);
    if (news.some(Boolean)) {
      const marks = marksOf(this._history, run);
      this._timeline.update(this._series.groups, marks);
      this._charts.update(this._series, marks);
    }
    this._events.update(this._history);
    await Promise.all([
      unlessRefused(this._checkpoints, run, signal),
      unlessRefused(this._layers, run, signal),
      this._offered ? null : this._offerComparisons(signal),
    ]);
    if (failed[0] !== undefined) throw failed[0];
  }

  /** Nothing is known of a run made anew under the same name. @param {string} created */
  _startAnew(created) {
    const again = this._created !== "";
    this._created = created;
    this._series = new Series();
    this._seriesMetrics = "";
    this._history = [];
    if (!again) return;
    this._timeline.update(this._series.groups, []);
    this._charts.update(this._series, []);
  }

  /** At once, because the reader asked for something else. */
  async _again() {
    try {
      if (this._run !== null) await this.refresh(this._away.signal);
    } catch {
      // The next round says what is wrong.
    }
  }

  /** @param {any} run @param {AbortSignal} signal @returns {Promise<boolean>} whether there is more now */
  async _refreshSeries(run, signal) {
    const metrics = this._charts.metrics.join(",");
    const grown = this._series.length > GROWTH * POINTS;
    if (this._seriesMetrics !== metrics || grown || !this._series.continues(run)) {
      const answer = await get(`${this._path}/series`, { points: POINTS, metrics }, signal);
      if (!this._isWanted(run, metrics)) return false;
      this._series.replace(structuredClone(answer));
      this._seriesMetrics = metrics;
      return true;
    }
    if (run.closed_step > this._series.closedStep) {
      const answer = await get(`${this._path}/series`, { points: POINTS, metrics, after_step: this._series.closedStep }, signal);
      if (!this._isWanted(run, metrics)) return false;
      if (this._series.continues(answer)) this._series.append(structuredClone(answer));
      else this._seriesMetrics = "";
      return true;
    }
    return false;
  }

  /** Whether what was asked for still is: the reader may have chosen others meanwhile. @param {any} run @param {string} metrics */
  _isWanted(run, metrics) {
    return run.created_at === this._created && metrics === this._charts.metrics.join(",");
  }

  /** @param {any} run @param {AbortSignal} signal @returns {Promise<boolean>} whether there is more now */
  async _refreshHistory(run, signal) {
    const last = this._history.at(-1)?.revision ?? 0;
    if (run.signal.revision < last) this._history = [];
    if (run.signal.revision === last) return false;
    const { events } = await get(`${this._path}/events`, this._history.length > 0 ? { after_revision: last } : {}, signal);
    if (run.created_at !== this._created) return false;
    // The reader's own request and that of the poll may overlap: each event once.
    const known = this._history.at(-1)?.revision ?? 0;
    const later = events.filter((/** @type {any} */ event) => event.revision > known);
    this._history = newest([...this._history, ...later]);
    return true;
  }

  /** @param {any} run */
  _announce(run) {
    const stop = run.stop_at_step === null ? "" : ` at step ${run.stop_at_step}`;
    const phases = run.groups.map((/** @type {any} */ group) => `${group.group} ${group.phase}`).join(", ");
    this._shell.setTitle(`${this._name}: ${run.action}`);
    const verdict = `Advice: ${run.action}${stop}. ${phases}`;
    if (this._verdict !== "" && this._verdict !== verdict) this._shell.announce(verdict);
    this._verdict = verdict;
  }

  /** @param {AbortSignal} signal */
  async _offerComparisons(signal) {
    const { runs, server_version: version } = await get("runs", {}, signal);
    this._shell.setServer(version);
    const others = runs.map((/** @type {any} */ run) => run.name).filter((/** @type {string} */ name) => name !== this._name);
    this._compare.replaceChildren(h("option", { value: "" }, others.length > 0 ? "choose a run …" : "no other run"), ...others.map((/** @type {string} */ name) => h("option", { value: name }, name)));
    setAttribute(this._compare, "disabled", others.length > 0 ? null : "");
    this._offered = true;
  }

  _openComparison() {
    const other = /** @type {HTMLSelectElement} */ (this._compare).value;
    if (other !== "") location.hash = `#/compare/${encodeURIComponent(this._name)}/${encodeURIComponent(other)}`;
  }
}

/**
 * A part of the page whose request the server refuses says so itself; the others stay up to date.
 * @param {{update: (run: any, signal: AbortSignal) => Promise<void>, showProblem: (message: string) => void}} part
 * @param {any} run @param {AbortSignal} signal
 */
async function unlessRefused(part, run, signal) {
  try {
    await part.update(run, signal);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status < 500) throw error;
    part.showProblem(error.message);
  }
}

/**
 * What the server fails to give is noted in `failed`: the rest of the page stays up to date.
 * @param {Promise<boolean>} task @param {ApiError[]} failed @returns {Promise<boolean>}
 */
async function unlessFailed(task, failed) {
  try {
    return await task;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status < 500) throw error;
    failed.push(error);
    return false;
  }
}

/** @param {import("./events.js").Event[]} history oldest first, as what is returned */
function newest(history) {
  let checkpoints = LONGEST_CHECKPOINT_HISTORY;
  let others = LONGEST_HISTORY;
  return history
    .toReversed()
    .filter((event) => (event.kind === "checkpoint" ? checkpoints-- : others--) > 0)
    .reverse();
}

/** @param {any} run @returns {string[]} */
function metricsOf(run) {
  return [...new Set(run.groups.flatMap((/** @type {any} */ group) => Object.keys(group.window?.metrics ?? {})))].sort();
}

/** Where the charts say that something was decided. @param {import("./events.js").Event[]} history oldest first @param {any} run */
function marksOf(history, run) {
  const best = run.best_checkpoint_step;
  // Where the job went back, what had been decided after that step holds no longer.
  let floor = run.closed_step;
  const decided = history
    .toReversed()
    .filter((event) => event.step <= floor && ((floor = event.step), true))
    .reverse()
    .filter((event) => event.kind === "action" && (event.after === "STOP" || event.after === "CHECKPOINT"))
    .map((event) => ({ step: event.step, kind: String(event.after), label: `${event.after} at step ${event.step}: ${event.reason}` }));
  return best === null ? decided : [...decided, { step: best, kind: "BEST", label: `Best checkpoint: step ${best}` }];
}
