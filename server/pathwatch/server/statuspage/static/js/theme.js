// @ts-check
// Light, dark, or as the system has it; and the colours that canvases need as numbers.

const KEY = "pathwatch.theme";
const ORDER = ["auto", "light", "dark"];
const changed = new EventTarget();
const probe = document.createElement("span");
/** @type {Map<string, string>} */
const known = new Map();

/** Make the button cycle through the themes. @param {HTMLElement} button */
export function startTheme(button) {
  probe.className = "hidden";
  document.body.append(probe);
  const show = () => {
    button.textContent = `Theme: ${current()}`;
  };
  button.addEventListener("click", () => {
    choose(ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length] ?? "auto");
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  show();
}

/** Call `listener` whenever colours change. @param {() => void} listener @returns {() => void} how to stop it */
export function onThemeChange(listener) {
  changed.addEventListener("change", listener);
  return () => changed.removeEventListener("change", listener);
}

/**
 * The colour of a custom property as a canvas takes it.
 * @param {string} property e.g. `--text`
 * @param {number} [opacity] 0 to 1
 */
export function colour(property, opacity = 1) {
  const key = `${property} ${opacity}`;
  let value = known.get(key);
  if (value === undefined) {
    probe.style.color = `color-mix(in srgb, var(${property}) ${opacity * 100}%, transparent)`;
    value = getComputedStyle(probe).color;
    known.set(key, value);
  }
  return value;
}

function current() {
  return document.documentElement.dataset.theme ?? "auto";
}

/** @param {string} theme */
function choose(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Storage is forbidden: it holds until the page is left.
  }
  redraw();
}

function redraw() {
  known.clear();
  changed.dispatchEvent(new Event("change"));
}
