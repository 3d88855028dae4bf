// @ts-check
// Which colour and pattern a group's line has, on every chart alike.

const COLOURS = 8;
/** @type {number[][]} */
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

/** @param {number} index of the group among all @returns {{colour: string, dash: number[]}} */
export function lineStyle(index) {
  return {
    colour: `--line-${index % COLOURS}`,
    dash: DASHES[Math.floor(index / COLOURS) % DASHES.length] ?? [],
  };
}

/** What a chart needs of one group. @param {import("./series.js").Columns} columns @param {string} metric @param {string | undefined} stderr */
export function lineData(columns, metric, stderr) {
  const errors = stderr === undefined ? undefined : columns.metrics[stderr];
  return {
    // Copies: a chart keeps what it was given while the columns grow.
    steps: [...columns.step],
    values: [...(columns.metrics[metric] ?? [])],
    errors: errors !== undefined && hasNumbers(errors) ? [...errors] : null,
  };
}

/** @param {(number | null)[]} values */
export function hasNumbers(values) {
  return values.some((value) => value !== null);
}
