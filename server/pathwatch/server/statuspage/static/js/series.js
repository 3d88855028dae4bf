// @ts-check
// A run's windows as columns, grown as new ones are judged.

/**
 * @typedef {{step: number[], attempt: number[], phase: string[], partial: boolean[],
 *   metrics: Record<string, (number | null)[]>}} Columns
 */

/** Windows of all groups of a run. */
export class Series {
  constructor() {
    /** @type {Record<string, Columns>} */
    this.groups = Object.create(null); // Groups may be named `constructor` or `__proto__`.
    this.attempt = -1;
    this.closedStep = -1;
    /** 1 = every window is there. */
    this.stride = 1;
  }

  /** Whether what came after `closedStep` can simply be appended. @param {{attempt: number, closed_step: number}} run */
  continues(run) {
    return this.attempt === run.attempt && run.closed_step >= this.closedStep;
  }

  /** @returns {number} Windows of the largest group. */
  get length() {
    return Math.max(0, ...Object.values(this.groups).map((columns) => columns.step.length));
  }

  /** Take a whole answer. @param {any} answer */
  replace(answer) {
    this.groups = Object.assign(Object.create(null), answer.groups);
    this.stride = answer.stride;
    this.attempt = answer.attempt;
    this.closedStep = answer.closed_step;
  }

  /** Take an answer to after_step. @param {any} answer */
  append(answer) {
    for (const [group, later] of Object.entries(/** @type {Record<string, Columns>} */ (answer.groups))) {
      const columns = this.groups[group];
      if (columns === undefined) this.groups[group] = later;
      else extend(columns, later);
    }
    this.stride = Math.max(this.stride, answer.stride);
    this.attempt = answer.attempt;
    this.closedStep = answer.closed_step;
  }
}

/** What a ranking or a heat map depends on. @param {any} run */
export function judgedState(run) {
  return `${run.created_at} ${run.attempt} ${run.closed_step} ${run.signal.revision} ${run.best_checkpoint_step}`;
}

/** Runs of windows with the same phase. @param {Columns} columns
 * @returns {{phase: string, from: number, to: number, until: number}[]} first and last step of each, and where the next begins */
export function phaseSegments(columns) {
  /** @type {{phase: string, from: number, to: number, until: number}[]} */
  const segments = [];
  columns.step.forEach((step, index) => {
    const phase = columns.phase[index] ?? "UNKNOWN";
    const last = segments.at(-1);
    if (last) last.until = step;
    if (last?.phase === phase) last.to = step;
    else segments.push({ phase, from: step, to: step, until: step });
  });
  return segments;
}

/** @param {Columns} columns @param {Columns} later */
function extend(columns, later) {
  const first = later.step[0];
  if (first === undefined) return;
  const keep = columns.step.findIndex((step) => step >= first);
  if (keep >= 0) cut(columns, keep);
  const before = columns.step.length;
  columns.step.push(...later.step);
  columns.attempt.push(...later.attempt);
  columns.phase.push(...later.phase);
  columns.partial.push(...later.partial);
  for (const metric of new Set([...Object.keys(columns.metrics), ...Object.keys(later.metrics)])) {
    const values = (columns.metrics[metric] ??= Array(before).fill(null));
    values.push(...(later.metrics[metric] ?? Array(later.step.length).fill(null)));
  }
}

/** @param {Columns} columns @param {number} length */
function cut(columns, length) {
  for (const column of [columns.step, columns.attempt, columns.phase, columns.partial, ...Object.values(columns.metrics)])
    column.length = length;
}
