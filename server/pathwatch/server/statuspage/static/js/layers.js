// @ts-check
// The heat map with its choice of group; or why there is none.

import { get } from "./api.js";
import { h } from "./dom.js";
import { HeatMap } from "./heatmap.js";
import { judgedState } from "./series.js";

const POINTS = 200;

export class LayersPanel {
  /** @param {string} run @param {() => void} onChoice called when another group is wanted */
  constructor(run, onChoice) {
    this._run = run;
    /** @type {HeatMap | null} */
    this._map = null;
    this._asked = "";
    this._select = /** @type {HTMLSelectElement} */ (h("select", { id: "layers-group", "data-action": "layers-group", change: onChoice }));
    this._choice = h("div", { class: "field", hidden: true }, h("label", { for: "layers-group" }, "Group"), this._select);
    this._note = h("p", { class: "card empty muted" }, "Loading …");
    this.element = h(
      "section",
      { "aria-labelledby": "layers-title" },
      h("div", { class: "section-head" }, h("h2", { id: "layers-title" }, "Layer by layer"), this._choice),
      this._note,
    );
  }

  destroy() {
    this._map?.destroy();
  }

  /** @param {any} run @param {AbortSignal} signal */
  async update(run, signal) {
    const names = run.groups.map((/** @type {any} */ group) => group.group);
    if (!run.config.per_layer) {
      this._say(
        "This run does not compute path distance layer by layer. To have it, create the run with ",
        h("code", {}, "per_layer=True"),
        " in its ",
        h("code", {}, "RunConfig"),
        "; it cannot be switched on later.",
      );
      return;
    }
    this._offer(names);
    if (names.length === 0) {
      this._say("No window has been judged yet.");
      return;
    }
    const group = this._select.value;
    const asked = `${judgedState(run)} ${group}`;
    if (asked === this._asked) return;
    const answer = await get(`runs/${encodeURIComponent(this._run)}/layers`, { group, points: POINTS }, signal).catch((error) => {
      if (group === this._select.value) throw error; // else another group is wanted meanwhile
    });
    if (group !== this._select.value) return;
    this._asked = asked;
    if (answer.step.length === 0) {
      this._say("No window of this group has been judged yet.");
      return;
    }
    this._note.hidden = true;
    if (this._map === null) {
      this._map = new HeatMap();
      this.element.append(this._map.element);
    }
    this._map.element.hidden = false;
    this._map.update(answer);
  }

  /** @param {string} message */
  showProblem(message) {
    this._asked = "";
    this._say(message);
  }

  /** Instead of a map: the last one may be of another group, or of windows that are no more. @param {...(Node | string)} why */
  _say(...why) {
    this._note.replaceChildren(...why);
    this._note.hidden = false;
    if (this._map !== null) this._map.element.hidden = true;
  }

  /** @param {string[]} names */
  _offer(names) {
    this._choice.hidden = names.length === 0;
    if (names.join("\n") === this._select.dataset.names) return;
    const chosen = this._select.value;
    this._select.dataset.names = names.join("\n");
    this._select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    if (names.includes(chosen)) this._select.value = chosen;
  }
}
