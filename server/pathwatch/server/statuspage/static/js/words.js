// @ts-check
// What the service's terms mean, in a sentence each.

/** @type {Record<string, string>} Phase → meaning, in the order in which a group usually goes through them. */
export const PHASES = {
  UNKNOWN: "Too little, stale or incomplete data to judge.",
  LEARNING: "The training samples are still being fitted.",
  MEMORIZED: "The training samples are fitted, but routing is not shared among them yet.",
  GENERALIZING: "Memorized, and routing is becoming shared: still getting better.",
  GENERALIZED: "Routing has become shared and has settled: training on brings little.",
  OVERFITTING: "The loss of samples not yet trained on is rising.",
  REGRESSING: "Had begun to generalize and lost it again.",
};

/** @type {Record<string, string>} */
export const ACTIONS = {
  CONTINUE: "Keep training. Nothing needs to be done.",
  CHECKPOINT: "Save a checkpoint now, and keep training.",
  STOP: "End training. Going on is not expected to help.",
};

/** @type {Record<string, {title: string, unit: string, stderr?: string, range?: [number, number]}>} */
const METRICS = {
  path_distance: { title: "Path distance", unit: "edits", stderr: "path_distance_stderr" },
  memorized_ratio: { title: "Memorized share", unit: "share of samples", range: [0, 1] },
  train_loss: { title: "Training loss", unit: "nats" },
  unseen_loss: { title: "Unseen loss", unit: "nats" },
  loss_gap: { title: "Loss gap", unit: "nats", stderr: "loss_gap_stderr" },
  path_distance_ratio: { title: "Path distance within / across groups", unit: "ratio" },
  path_smoothness: { title: "Path smoothness", unit: "" },
  target_affinity: { title: "Target affinity", unit: "ratio" },
  effective_dimension: { title: "Effective dimension", unit: "dimensions" },
  routing_entropy: { title: "Routing entropy", unit: "nats" },
  expert_load_max_ratio: { title: "Busiest expert's load", unit: "× mean" },
  path_distance_normalized: { title: "Path distance, normalized", unit: "share of length" },
  path_distance_cross: { title: "Path distance across groups", unit: "edits" },
  path_consistency: { title: "Path consistency", unit: "" },
  adjacent_cosine: { title: "Cosine of neighbouring layers", unit: "" },
  target_effective_dimension: { title: "Effective dimension over target tokens", unit: "dimensions" },
  window_samples: { title: "Samples in the window", unit: "observations" },
};

/** Drawn unless chosen otherwise, in this order. */
export const DEFAULT_METRICS = [
  "path_distance",
  "memorized_ratio",
  "train_loss",
  "unseen_loss",
  "loss_gap",
  "path_distance_ratio",
  "path_smoothness",
  "target_affinity",
  "effective_dimension",
  "routing_entropy",
  "expert_load_max_ratio",
];

/** @param {string} metric */
export function metricWords(metric) {
  const known = METRICS[metric];
  if (known) return known;
  const threshold = /^path_distance_tau_(\d+)_(\d+)$/.exec(metric);
  if (threshold) return { title: `Path distance at τ = ${threshold[1]}.${threshold[2]}`, unit: "edits" };
  const title = metric.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());
  return { title, unit: "" };
}

/** Whether a metric only says how sure another is. @param {string} metric */
export function isError(metric) {
  return metric.endsWith("_stderr");
}
