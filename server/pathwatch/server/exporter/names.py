"""What each published metric means: unit, direction, source."""

from __future__ import annotations

import re
from collections.abc import Mapping

PREFIX = "pathwatch_"

METRIC_HELP: Mapping[str, str] = {
    "path_distance": (
        "Mean edit distance of the group's expert pathways, in symbols; lower = more shared (paper 4.1)."
    ),
    "path_distance_normalized": (
        "Path distance divided by the longer pathway's length, 0 to 1; lower = more shared."
    ),
    "path_distance_stderr": "Standard error of pathwatch_path_distance, in symbols.",
    "path_distance_cross": (
        "Mean edit distance between pathways of this and of other groups, in symbols (paper E.4)."
    ),
    "path_distance_ratio": (
        "Path distance within the group divided by that to other groups; "
        "lower = the group shares pathways of its own."
    ),
    "path_consistency": (
        "Pathway consistency C_i exactly as printed in paper 4.2, mean over samples; lower = smoother."
    ),
    "path_consistency_samples": "Samples for which pathway consistency is defined.",
    "path_smoothness": (
        "1 minus pathwatch_path_consistency; higher = smoother (the sense of the paper's Table 1)."
    ),
    "adjacent_cosine": (
        "Mean cosine of routing embeddings of neighbouring layers, -1 to 1; higher = smoother."
    ),
    "effective_dimension": (
        "Effective dimension of the routing weights over all tokens; lower = simpler routing (paper 4.4)."
    ),
    "target_effective_dimension": (
        "Effective dimension of the routing weights over target tokens; lower = simpler routing."
    ),
    "target_affinity": (
        "Squared routing distance of same-target pairs divided by that of all pairs; "
        "lower = routing follows the target."
    ),
    "same_target_pairs": "Pairs of samples with the same target behind pathwatch_target_affinity.",
    "routing_entropy": "Mean entropy of the routing weights, in nats; higher = softer routing (paper E.5).",
    "expert_load_max_ratio": "Largest expert load divided by the mean load, 1 or more; 1 = balanced.",
    "train_loss": "Mean loss of samples that were trained on, in nats per token; lower = better fitted.",
    "unseen_loss": "Mean loss of samples not trained on yet, in nats per token; lower = better generalized.",
    "loss_gap": "Unseen loss minus loss of seen samples, in nats; higher = more memorized.",
    "loss_gap_stderr": "Standard error of pathwatch_loss_gap, in nats.",
    "memorized_ratio": "Share of samples that count as memorized, 0 to 1 (paper 3.1).",
    "window_samples": "Samples in the group's newest window.",
}
"""By name without the prefix; further ones (other thresholds, plug-ins) are described in general words."""

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_THRESHOLD = re.compile(r"path_distance_tau_(\d+)_(\d+)")
_RESERVED = ("_total", "_bucket", "_count", "_sum", "_info", "_created")


_TAKEN = frozenset(
    {
        *("layer_path_distance", "window_step", "window_partial", "window_close_seconds"),
        *("group_phase", "group_phase_since_step", "phase_changes", "best_checkpoint_step", "checkpoints"),
        *("run", "run_action", "run_step", "run_closed_step", "run_attempt", "run_active", "run_stale"),
        *("run_stop_at_step", "state_age_seconds", "expected_ranks", "connected_ranks", "missing_ranks"),
        *("partial_rounds", "unjudged_rounds", "ingest_observations", "ingest_bytes", "other_groups"),
        *("data_folder_free_bytes", "data_folder_size_bytes", "database_bytes"),
        *("snapshot_age_seconds", "snapshot_interval_seconds"),
        *("relay_observations", "relay_bytes"),
        *("commit_failures", "limit_refusals", "refused_calls", "reload_failures", "reload_failing"),
        *("webhook_deliveries", "webhook_pending", "owned_runs", "lease_losses"),
    }
)
"""Families that are no metrics of groups."""


def is_metric_name(name: str) -> bool:
    """Whether a metric's name can be published as a gauge: a plug-in may bring any."""
    return bool(_NAME.fullmatch(name)) and not name.endswith(_RESERVED) and name not in _TAKEN


def help_text(name: str) -> str:
    """What the metric says, for people who find it in Prometheus."""
    if name in METRIC_HELP:
        return METRIC_HELP[name]
    if threshold := _THRESHOLD.fullmatch(name):
        tau = f"{threshold[1]}.{threshold[2]}"
        return f"Path distance at pathway threshold {tau}, in symbols; lower = more shared (paper E.1)."
    return f"Value {name} of a metric plug-in, see the plug-in's documentation."
