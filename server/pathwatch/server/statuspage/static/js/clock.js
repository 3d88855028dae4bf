// @ts-check
// The server's time: that of its newest answer, and what passed here since. The clock of this computer may be wrong.

let server = Date.now();
let here = performance.now();

/** @param {string} now of an answer that was just made */
export function setServerTime(now) {
  server = Date.parse(now);
  here = performance.now();
}

/** Believed only where the clock is off, as after this computer slept: it says whole seconds. @param {string} date as of the header Date */
export function checkServerTime(date) {
  const now = Date.parse(date) + 500;
  if (Math.abs(now - (server + performance.now() - here)) < 1500 || Number.isNaN(now)) return;
  server = now;
  here = performance.now();
}

/** Seconds since `iso` by the server's clock. @param {string} iso */
export function secondsSince(iso) {
  return Math.max(0, (server + performance.now() - here - Date.parse(iso)) / 1000);
}
