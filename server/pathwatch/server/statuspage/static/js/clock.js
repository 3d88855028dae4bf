// @ts-check
// The server's time: that of its newest answer, and what passed here since. The clock of this computer may be wrong.

let server = Date.now();
let here = performance.now();

/** @param {string} now of an answer that was just made */
export function setServerTime(now) {
  server = Date.parse(now);
  here = performance.now();
}

/** Seconds since `iso` by the server's clock. @param {string} iso */
export function secondsSince(iso) {
  return Math.max(0, (server + performance.now() - here - Date.parse(iso)) / 1000);
}
