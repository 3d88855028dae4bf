// @ts-check
// Building the page. Text only ever becomes text: nothing here parses HTML.

/**
 * An element.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties] attributes; functions become listeners; null and false are left out
 * @param {...(Node | string | null)} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, /** @type {EventListener} */ (value));
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Change a text only where it differs, so that screen readers and selections are left alone.
 * @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {Element} element @param {string} name @param {string | null} value null = without it */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Whole numbers of steps: the text is the bare number, so that it can be copied; groups of three are set apart.
 * @param {Element} element @param {number | null} step @param {string} [absent] */
export function setStep(element, step, absent = "–") {
  const text = step === null ? absent : String(step);
  if (element.textContent === text) return;
  if (step === null || Math.abs(step) < 10000) {
    element.textContent = text;
    return;
  }
  const parts = [];
  for (let end = text.length; end > 0; end -= 3) parts.unshift(text.slice(Math.max(0, end - 3), end));
  element.replaceChildren(...parts.map((part, index) => h("span", { class: index > 0 && "thousands" }, part)));
}

/**
 * Children that follow a list: made once per key, updated, moved, removed.
 * @template Item, Part
 * @param {Element} parent
 * @param {(item: Item) => string} key
 * @param {(item: Item) => Part & {element: HTMLElement}} create
 * @param {(part: Part & {element: HTMLElement}, item: Item) => void} update
 * @returns {(items: Item[]) => void}
 */
export function keyed(parent, key, create, update) {
  /** @type {Map<string, Part & {element: HTMLElement}>} */
  const parts = new Map();
  return (items) => {
    const wanted = new Set(items.map(key));
    for (const [name, part] of parts)
      if (!wanted.has(name)) {
        part.element.remove();
        parts.delete(name);
      }
    items.forEach((item, index) => {
      const name = key(item);
      const part = parts.get(name) ?? create(item);
      parts.set(name, part);
      update(part, item);
      const there = parent.children[index];
      if (there !== part.element) parent.insertBefore(part.element, there ?? null);
    });
  };
}
