// @ts-check
// Phases, actions and states as colour, symbol and text together.

import { h, setAttribute } from "./dom.js";
import { icon } from "./icons.js";
import { ACTIONS, PHASES } from "./words.js";

/** @param {string} phase @param {Record<string, unknown>} [properties] of the text */
export function phaseBadge(phase, properties = {}) {
  const text = h("span", properties, phase);
  return h("span", { class: "badge", "data-tone": phase, title: PHASES[phase] ?? null }, icon(phase), text);
}

/** One item per phase, with the groups in it. @param {{group: string, phase: string}[]} groups */
export function phaseItems(groups) {
  const items = [];
  for (const phase of Object.keys(PHASES)) {
    const names = groups.filter((group) => group.phase === phase).map((group) => group.group);
    if (names.length === 0) continue;
    const text = `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
    items.push(
      h(
        "li",
        { title: names.join(", ") },
        h("span", { class: "badge small-badge", "data-tone": phase }, icon(phase), h("span", {}, phase)),
        h("span", { class: "phase-groups" }, text),
      ),
    );
  }
  return items;
}

/** A badge that can change: `set` puts another name.
 * @param {Record<string, unknown>} properties of the text @param {Record<string, string>} meanings */
function changing(properties, meanings) {
  const text = h("span", properties);
  const element = h("span", { class: "badge" });
  let now = "";
  return {
    element,
    set(/** @type {string} */ name) {
      if (name === now) return;
      now = name;
      text.textContent = name;
      setAttribute(element, "data-tone", name);
      setAttribute(element, "title", meanings[name] ?? null);
      element.replaceChildren(icon(name), text);
    },
  };
}

/** @param {Record<string, unknown>} properties of the text */
export function changingPhase(properties) {
  return changing(properties, PHASES);
}

/** @param {Record<string, unknown>} properties of the text */
export function changingAction(properties) {
  return changing(properties, ACTIONS);
}
