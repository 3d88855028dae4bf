// @ts-check
// Starts the page.

import { openCompare } from "./compare.js";
import { startRouter } from "./router.js";
import { openRun } from "./run.js";
import { openRuns } from "./runs.js";
import { Shell } from "./shell.js";
import { startTheme } from "./theme.js";

startTheme(/** @type {HTMLElement} */ (document.querySelector("[data-action=theme]")));
startRouter(new Shell(), [
  { pattern: /^#\/runs\/([^/]+)$/, open: openRun },
  { pattern: /^#\/compare\/([^/]+)\/([^/]+)$/, open: openCompare },
  { pattern: /^(#\/?)?$/, open: openRuns },
]);
