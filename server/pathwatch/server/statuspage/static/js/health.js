// @ts-check
// Whether what the verdicts rest on can be trusted.

import { secondsSince } from "./clock.js";
import { h, setAttribute, setText } from "./dom.js";
import { ago, count, duration, percent, plural } from "./format.js";
import { icon } from "./icons.js";

/** @typedef {{state: "ok" | "warn" | "bad", value: string, sentence: string}} Finding */

const LOST = { late: "late", rejected: "refused as faulty", dropped: "dropped by the client" };
const LOST_BAD = 0.01;
const BACKLOG_WARN = 4;
const BACKLOG_BAD = 16;
/** Share of the patience without data after which to look. */
const AGE_WARN = 0.5;
/** Younger than this, nothing is late: the page itself asks every few seconds. */
const AGE_WARN_SECONDS = 10;

const ITEMS = [
  { key: "freshness", title: "Freshness", judge: freshness },
  { key: "ranks", title: "Ranks", judge: ranks },
  { key: "lost", title: "Lost observations", judge: lost },
  { key: "partial", title: "Partial rounds", judge: partial },
  { key: "backlog", title: "Backlog", judge: backlog },
];

const SUMMARY = {
  ok: "Yes: nothing is late, missing or lost.",
  warn: "Mostly: look at what is marked.",
  bad: "No: mend what is marked before you rely on phases.",
};

export class Health {
  constructor() {
    this._summary = h("span", { class: "health-summary" });
    this._items = ITEMS.map(({ key, title, judge }) => ({ judge, ...makeItem(key, title) }));
    this.element = h(
      "section",
      { class: "health", "aria-labelledby": "health-title" },
      h("div", { class: "section-head" }, h("h2", { id: "health-title" }, "Can the data be trusted?"), this._summary),
      h("ul", { class: "health-items card" }, ...this._items.map((item) => item.element)),
    );
  }

  /** @param {any} run */
  update(run) {
    let worst = /** @type {"ok" | "warn" | "bad"} */ ("ok");
    for (const item of this._items) {
      const finding = item.judge(run);
      if (finding.state === "bad" || (finding.state === "warn" && worst === "ok")) worst = finding.state;
      item.show(finding);
    }
    setText(this._summary, SUMMARY[worst]);
    setAttribute(this._summary, "data-state", worst);
  }
}

/** @param {string} key @param {string} title */
function makeItem(key, title) {
  const symbol = h("span", { class: "health-symbol" });
  const value = h("span", { class: "health-value" });
  const sentence = h("span", { class: "health-sentence" });
  const state = h("span", { class: "hidden" });
  const head = h("span", { class: "health-head" }, symbol, h("span", { class: "health-title" }, title), state);
  const element = h("li", { class: "health-item", "data-health": key }, head, value, sentence);
  return {
    element,
    show(/** @type {Finding} */ finding) {
      if (element.dataset.state !== finding.state) symbol.replaceChildren(icon(finding.state));
      setAttribute(element, "data-state", finding.state);
      setText(state, ` (${finding.state})`);
      setText(value, finding.value);
      setText(sentence, finding.sentence);
    },
  };
}

/** @param {any} run @returns {Finding} */
function freshness(run) {
  const age = secondsSince(run.updated_at);
  const value = ago(age);
  const patience = duration(run.health.patience_seconds);
  if (run.state === "finished") return { state: "ok", value, sentence: "The run is finished: no more data is due." };
  if (run.stale)
    return { state: "bad", value, sentence: `Stale: silent for longer than ${patience}. Is the job alive, can it reach the server?` };
  if (run.action === "STOP") return { state: "ok", value, sentence: "After a STOP silence is expected." };
  if (age > Math.max(AGE_WARN_SECONDS, AGE_WARN * run.health.patience_seconds))
    return { state: "warn", value, sentence: `Late; after ${patience} the run counts as stale.` };
  return { state: "ok", value, sentence: `Fresh; stale after ${patience} of silence.` };
}

/** @param {any} run @returns {Finding} */
function ranks(run) {
  const { connected_ranks: connected, missing_ranks: missing, world_size: expected } = run.health;
  const value = run.state === "finished" ? String(expected) : `${connected} of ${expected}`;
  if (missing.length > 0)
    return {
      state: "bad",
      value: `${missing.length} missing`,
      sentence: `The newest round came without ${missing.length === 1 ? "rank" : "ranks"} ${someOf(missing)}.`,
    };
  if (run.state === "finished") return { state: "ok", value, sentence: "All were there for the last round." };
  if (expected === 0) return { state: "warn", value, sentence: "No rank has said hello yet." };
  if (connected < expected)
    return {
      state: "warn",
      value,
      sentence: connected === 0 ? "None is connected now." : "Not all are connected now; none missing in the newest round.",
    };
  return { state: "ok", value, sentence: "All connected, none missing in the newest round." };
}

/** @param {any} run @returns {Finding} */
function lost(run) {
  const counts = run.health.observations;
  const reasons = Object.entries(LOST).filter(([result]) => (counts[result] ?? 0) > 0);
  const gone = reasons.reduce((sum, [result]) => sum + counts[result], 0);
  const all = gone + (counts.accepted ?? 0);
  if (gone === 0)
    return {
      state: "ok",
      value: "0",
      sentence: all > 0 ? `${plural(all, "observation")} taken since the server started.` : "None came since the server started.",
    };
  const words = reasons.map(([result, word]) => `${count(counts[result])} ${word}`).join(", ");
  return {
    state: gone / all >= LOST_BAD ? "bad" : "warn",
    value: `${count(gone)} (${percent(gone / all)})`,
    sentence: `Of ${count(all)}: ${words}.`,
  };
}

/** @param {any} run @returns {Finding} */
function partial(run) {
  const rounds = run.health.partial_rounds;
  const now = run.groups.filter((/** @type {any} */ group) => group.window?.partial);
  if (now.length > 0)
    return { state: "bad", value: count(rounds), sentence: "The newest windows lack ranks: their groups cannot be judged." };
  if (rounds > 0)
    return { state: "warn", value: count(rounds), sentence: `${rounds === 1 ? "It was" : "They were"} judged without all ranks; the newest is whole.` };
  return { state: "ok", value: "0", sentence: "Every round had all ranks." };
}

/** @param {any} run @returns {Finding} */
function backlog(run) {
  const waiting = run.health.unjudged_rounds;
  const value = plural(waiting, "round");
  if (waiting >= BACKLOG_BAD) return { state: "bad", value, sentence: "The server cannot keep up: advice comes late." };
  if (waiting >= BACKLOG_WARN) return { state: "warn", value, sentence: "The server is catching up." };
  return { state: "ok", value, sentence: waiting === 0 ? "Everything that came is judged." : "Being judged now." };
}

/** @param {number[]} numbers */
function someOf(numbers) {
  const shown = numbers.slice(0, 8).join(", ");
  return numbers.length > 8 ? `${shown} and ${numbers.length - 8} more` : shown;
}
