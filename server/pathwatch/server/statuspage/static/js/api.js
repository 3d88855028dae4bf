// @ts-check
// Reading the server's JSON API; see docs/api.md.

import { checkServerTime, setServerTime } from "./clock.js";
import { token } from "./token.js";

const TIMEOUT_MS = 15000;
const REMEMBERED = 32;

/** @type {Map<string, {etag: string, body: any}>} Newest answers by path, for conditional requests. */
const answers = new Map();

/** A request that was not answered as hoped. */
export class ApiError extends Error {
  /** @param {number} status 0 = no answer at all @param {string} message @param {number} [retryAfter] seconds */
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * What the API says at a path below /api/v1/. Throws ApiError, or AbortError where `signal` says so.
 * @param {string} path
 * @param {Record<string, string | number>} parameters
 * @param {AbortSignal} signal
 * @returns {Promise<any>} the very same object as before where nothing changed; do not change it
 */
export async function get(path, parameters, signal) {
  const query = new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)]));
  const url = `api/v1/${path}${query.size ? `?${query}` : ""}`;
  const remembered = answers.get(url);
  const response = await send(url, remembered?.etag, signal);
  if (response.status === 304 && remembered) {
    checkServerTime(response.headers.get("Date") ?? "");
    return remembered.body;
  }
  if (!response.ok) throw await refusal(response);
  const body = await unlessCut(response.json(), signal);
  if (body.now) setServerTime(body.now);
  remember(url, response.headers.get("ETag"), body);
  return body;
}

/** Ask for everything anew, as after a change of token. */
export function forgetAnswers() {
  answers.clear();
}

/** @param {string} url @param {string | undefined} etag @param {AbortSignal} signal */
async function send(url, etag, signal) {
  const headers = new Headers({ Accept: "application/json" });
  const secret = token();
  if (secret !== null) headers.set("Authorization", `Bearer ${secret}`);
  if (etag !== undefined) headers.set("If-None-Match", etag);
  const either = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  return unlessCut(fetch(url, { headers, cache: "no-store", signal: either }), signal);
}

/**
 * An answer, or its body, which a server that ends leaves unfinished.
 * @template T
 * @param {Promise<T>} answer @param {AbortSignal} signal @returns {Promise<T>}
 */
async function unlessCut(answer, signal) {
  try {
    return await answer;
  } catch (error) {
    if (signal.aborted || error instanceof SyntaxError) throw error; // not JSON: a proxy's
    throw new ApiError(0, "the server does not answer");
  }
}

/** @param {Response} response */
async function refusal(response) {
  let message = response.statusText;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not the API's own words: a proxy's, or those of the door.
  }
  return new ApiError(response.status, message, Number(response.headers.get("Retry-After")) || 0);
}

/** @param {string} url @param {string | null} etag @param {any} body */
function remember(url, etag, body) {
  answers.delete(url);
  if (etag === null) return;
  answers.set(url, { etag, body });
  for (const oldest of answers.keys()) {
    if (answers.size <= REMEMBERED) return;
    answers.delete(oldest);
  }
}
