// @ts-check
// How long ago something was, by the server's clock, while answers that did not change are not sent again.

/** The server's time now: that of its last answer, and what passed here since. */
export class ServerClock {
  constructor() {
    this._server = Date.now();
    this._here = performance.now();
  }

  /** @param {string} now of an answer that was just made */
  set(now) {
    this._server = Date.parse(now);
    this._here = performance.now();
  }

  /** Seconds since `iso`. @param {string} iso */
  since(iso) {
    return Math.max(0, (this._server + performance.now() - this._here - Date.parse(iso)) / 1000);
  }
}
