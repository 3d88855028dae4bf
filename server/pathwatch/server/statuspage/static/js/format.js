// @ts-check
// Numbers and times as people read them.

const GROUPED = new Intl.NumberFormat("en-US");
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const PRECISE = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "long" });

/** @param {number | null | undefined} value */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(2);
  if (Number.isInteger(value) || size >= 10000) return GROUPED.format(Math.round(value));
  return value.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 3).replace("-", "−");
}

/** A value with half the width of its interval, to as many places as the value. @param {number} value @param {number} width */
export function interval(value, width) {
  const text = number(value);
  const places = /\.(\d+)$/.exec(text)?.[1]?.length ?? 0;
  return text.includes("e") ? `${text} ± ${number(width)}` : `${text} ± ${width.toFixed(places)}`;
}

/** @param {number} value */
export function count(value) {
  return GROUPED.format(value);
}

/** @param {number | null | undefined} share 0 to 1 */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  return `${value > 0 && value < 1 ? value.toFixed(2) : value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** A step beside an axis, large ones in groups of three. @param {number} step */
export function axisStep(step) {
  return Math.abs(step) < 10000 ? String(step) : GROUPED.format(step).replaceAll(",", "\u202f");
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 1) return "under 1 s";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** @param {number} seconds */
export function ago(seconds) {
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/** @param {string} iso */
export function date(iso) {
  return DATE.format(new Date(iso));
}

/** With weekday, seconds and time zone. @param {string} iso */
export function preciseDate(iso) {
  return PRECISE.format(new Date(iso));
}

/** @param {number} amount @param {string} one @param {string} [many] */
export function plural(amount, one, many = `${one}s`) {
  return `${count(amount)} ${amount === 1 ? one : many}`;
}

/** Round numbers that divide a range into about `wanted` parts. @param {number} low @param {number} high @param {number} wanted */
export function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const distance = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) ?? rough;
  const found = [];
  for (let tick = Math.ceil(low / distance) * distance; tick <= high + distance * 1e-9; tick += distance)
    found.push(Math.round(tick / distance) * distance);
  return found;
}
