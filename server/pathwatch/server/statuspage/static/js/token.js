// @ts-check
// The bearer token, kept for this tab alone.

const KEY = "pathwatch.token";

/** @returns {string | null} */
export function token() {
  return sessionStorage.getItem(KEY);
}

/** @param {string} secret */
export function keepToken(secret) {
  sessionStorage.setItem(KEY, secret);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}
