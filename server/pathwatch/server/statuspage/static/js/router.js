// @ts-check
// From the address to a page; a page that is left gives back all it holds.

import { h } from "./dom.js";

/**
 * @typedef {import("./shell.js").Shell} Shell
 * @typedef {(root: HTMLElement, shell: Shell, ...names: string[]) => () => void} Open shows a page in `root`;
 *   what it returns ends it
 */

/** @param {Shell} shell @param {{pattern: RegExp, open: Open}[]} pages */
export function startRouter(shell, pages) {
  let close = () => {};
  const show = () => {
    close();
    close = go(shell, pages);
  };
  addEventListener("hashchange", () => {
    show();
    scrollTo(0, 0);
    shell.main.querySelector("h1")?.focus({ preventScroll: true });
  });
  show();
}

/** @param {Shell} shell @param {{pattern: RegExp, open: Open}[]} pages */
function go(shell, pages) {
  const root = h("div", { class: "page" });
  shell.show(root);
  for (const { pattern, open } of pages) {
    const found = pattern.exec(location.hash);
    if (found) return open(root, shell, ...found.slice(1).map(decoded));
  }
  shell.setTitle("Not found");
  root.append(
    h("h1", { tabindex: "-1" }, "There is no such page"),
    h("p", {}, h("a", { href: "#/" }, "All runs")),
  );
  return () => {};
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
