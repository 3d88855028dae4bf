// @ts-check
// What stays while pages come and go: connection, token, announcements.

import { ApiError, forgetAnswers } from "./api.js";
import { h, setText } from "./dom.js";
import { duration } from "./format.js";
import { poll } from "./poll.js";
import { forgetToken, keepToken, token } from "./token.js";

/** What a header can carry. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** @param {string} selector */
function find(selector) {
  return /** @type {HTMLElement} */ (document.querySelector(selector));
}

export class Shell {
  constructor() {
    this.main = find("main");
    this._connection = find("[data-field=connection]");
    this._away = find("[data-field=away]");
    this._answered = performance.now();
    this._announcement = find("[data-field=announcement]");
    this._forget = find("[data-action=forget-token]");
    this._forget.addEventListener("click", () => {
      forgetToken();
      location.reload();
    });
    find(".skip-link").addEventListener("click", (event) => {
      event.preventDefault(); // The address says which page this is.
      this.main.focus();
    });
    this._forget.hidden = token() === null;
  }

  /** Put a page in place of the last. @param {HTMLElement} root */
  show(root) {
    this.main.replaceChildren(root);
  }

  /** @param {string} title */
  setTitle(title) {
    document.title = `${title} · pathwatch`;
  }

  /** Have a screen reader say it. @param {string} text */
  announce(text) {
    this._announcement.textContent = text;
  }

  /** Which server this is. @param {string} version */
  setServer(version) {
    setText(find("[data-field=server]"), `pathwatch ${version}`);
  }

  /**
   * Keep a page up to date.
   * @param {(signal: AbortSignal) => Promise<void>} task
   * @param {(error: ApiError) => void} missing what to do where there is no such thing (any more)
   * @returns {() => void} how to end it
   */
  watch(task, missing) {
    return poll(task, {
      fresh: () => this._setConnection("live"),
      away: (error) => this._setConnection("reconnecting", error.message),
      refused: (error) => {
        this._setConnection("live");
        return this._askForToken(error);
      },
      missing: (error) => {
        this._setConnection("live");
        missing(error);
      },
    });
  }

  /** @param {"live" | "reconnecting"} state @param {string} [why] */
  _setConnection(state, why = "") {
    setText(this._connection, state);
    const around = /** @type {HTMLElement} */ (this._connection.parentElement);
    if (state !== "live" && around.dataset.state === "live") this.announce(`Not up to date: ${why}.`);
    if (state === "live" && around.dataset.state === "reconnecting") this.announce("The server answers again.");
    around.dataset.state = state;
    if (state === "live") this._answered = performance.now();
    const silent = (performance.now() - this._answered) / 1000;
    setText(this._away, state === "live" ? "" : `Not up to date for ${duration(silent)}: ${why}. What is shown may be that old.`);
  }

  /** @param {ApiError} error @returns {Promise<void>} */
  _askForToken(error) {
    const page = this.main.querySelector(".page");
    this.main.querySelector("[data-form=token]")?.remove();
    page?.setAttribute("hidden", "");
    return new Promise((resolve) => {
      const input = h("input", { type: "password", id: "token", name: "token", autocomplete: "off", required: true });
      const problem = h("p", { role: "alert", class: token() === null ? "muted" : "problem" }, wordsOf(error));
      const form = h(
        "form",
        {
          class: "token-form card",
          "data-form": "token",
          submit: (/** @type {Event} */ event) => {
            event.preventDefault();
            const secret = /** @type {HTMLInputElement} */ (input).value.trim();
            if (!SENDABLE.test(secret)) {
              problem.textContent = "This cannot be a token: it may hold letters, digits and signs of ASCII alone.";
              problem.className = "problem";
              return;
            }
            keepToken(secret);
            forgetAnswers();
            this._forget.hidden = false;
            form.remove();
            page?.removeAttribute("hidden");
            resolve();
          },
        },
        h("h1", { tabindex: "-1" }, "A token is needed"),
        problem,
        h("label", { for: "token" }, "Token"),
        h("div", { class: "token-line" }, input, h("button", { class: "button primary" }, "Open")),
        h("p", { class: "muted small" }, "It is kept in this tab until it is closed, and sent to this server alone."),
      );
      this.main.append(form);
      input.focus();
    });
  }
}

/** @param {ApiError} error */
function wordsOf(error) {
  if (error.status === 403) return "This token may not read here: it needs the scope read, for all runs.";
  if (token() !== null) return "This token is wrong or has expired.";
  return "This server shows its runs to holders of a token with the scope read.";
}
