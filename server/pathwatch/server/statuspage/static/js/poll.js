// @ts-check
// Asking again and again, without hammering a server that is away.

import { ApiError } from "./api.js";

const VISIBLE_MS = 2000;
const HIDDEN_MS = 5000;
const FIRST_BACKOFF_MS = 1000;
const LONGEST_BACKOFF_MS = 15000;

/**
 * Runs `task` now and every few seconds.
 * @param {(signal: AbortSignal) => Promise<void>} task
 * @param {{fresh: () => void, away: (error: Error) => void, refused: (error: ApiError) => Promise<void>,
 *   missing: (error: ApiError) => void}} heard `refused` resolves once it makes sense to try again
 * @returns {() => void} how to end it
 */
export function poll(task, heard) {
  const controller = new AbortController();
  void run(task, heard, controller.signal);
  return () => controller.abort();
}

/** @param {Parameters<typeof poll>[0]} task @param {Parameters<typeof poll>[1]} heard @param {AbortSignal} signal */
async function run(task, heard, signal) {
  let failures = 0;
  while (!signal.aborted) {
    let wait = document.hidden ? HIDDEN_MS : VISIBLE_MS;
    try {
      await task(signal);
      if (signal.aborted) return;
      failures = 0;
      heard.fresh();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) console.error(error);
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
        await heard.refused(error);
        continue;
      }
      if (error instanceof ApiError && error.status === 404) {
        failures = 0;
        heard.missing(error);
      } else {
        const backoff = Math.min(LONGEST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** failures) * (0.75 + Math.random() / 2);
        failures += 1;
        wait = Math.max(backoff, error instanceof ApiError ? error.retryAfter * 1000 : 0);
        heard.away(/** @type {Error} */ (error));
      }
    }
    await pause(wait, signal);
  }
}

/** Waits; shorter when the page comes to the front or the network comes back. @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const wake = () => {
      if (!document.hidden) done();
    };
    const done = () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    document.addEventListener("visibilitychange", wake);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
