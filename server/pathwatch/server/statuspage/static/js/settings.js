// @ts-check
// How a run was set up.

import { h } from "./dom.js";
import { duration, preciseDate } from "./format.js";

export class Settings {
  constructor() {
    this._shown = "";
    this._list = h("dl", { class: "settings" });
    this.element = h("details", { class: "card settings-card" }, h("summary", {}, h("h2", {}, "How this run was set up")), this._list);
  }

  /** @param {any} run */
  update(run) {
    const shown = JSON.stringify(run.config);
    if (shown === this._shown) return;
    this._shown = shown;
    this._list.replaceChildren(...rows(run).map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text))));
  }
}

/** @param {any} run @returns {[string, string][]} */
function rows(run) {
  const config = run.config;
  const options = Object.entries(config.policy_options ?? {}).map(([name, value]) => `${name} = ${value}`);
  return [
    ["Created", preciseDate(run.created_at)],
    ["Mode", config.window_steps ? `${config.mode}, windows of ${config.window_steps} steps` : config.mode],
    ["MoE layers × experts", `${config.layers} × ${config.experts}`],
    ["Samples kept per window", String(config.capacity)],
    ["Missing ranks are waited for", duration(config.grace_seconds)],
    ["Thresholds τ", config.thresholds.join(", ")],
    ["Detector", config.detector],
    ["Policy", [config.policy, ...options].join(", ")],
    ["Distance per layer", config.per_layer ? "computed" : "not computed"],
    ["Observations", config.keep_observations ? "kept" : "not kept"],
  ];
}
