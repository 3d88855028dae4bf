"""Points of a run as a whole: where it is, what it is told, and whether its data can be trusted."""

from __future__ import annotations

from collections.abc import Iterator

from pathwatch.server.engine.view import RunView
from pathwatch.server.exporter.families import Family, Labels, Point
from pathwatch.server.exporter.group_points import BEST
from pathwatch.server.phases.verdict import Action
from pathwatch.v1 import run_pb2, signal_pb2

INFO = Family(
    "run", "1; its labels say how the run was set up: probe or stream, MoE layers, experts, policy.", "info"
)
ACTION = Family("run_action", "1 for what the run is told to do, 0 for all else.")
STEP = Family("run_step", "Newest optimizer step seen of a run, -1 before the first; higher = further.")
CLOSED_STEP = Family(
    "run_closed_step", "Newest optimizer step that was judged, -1 before the first; higher = further."
)
ATTEMPT = Family("run_attempt", "Current attempt, counted from 0; higher = more restarts and rewinds.")
ACTIVE = Family("run_active", "1 while the run takes data, 0 once it is finished.")
STALE = Family(
    "run_stale", "1 while no data has come for so long that nobody knows how the run is; 0 = fresh."
)
STOP = Family("run_stop_at_step", "Optimizer step at which a run is told to stop; absent = train on.")
AGE = Family("state_age_seconds", "Seconds since data of an active run last came; lower = fresher.")
EXPECTED_RANKS = Family("expected_ranks", "Ranks that send for the run, as they say themselves.")
CONNECTED_RANKS = Family(
    "connected_ranks", "Ranks whose streams are open; fewer than pathwatch_expected_ranks = some are away."
)
MISSING_RANKS = Family(
    "missing_ranks", "Ranks without which the newest round of windows was judged; 0 = complete."
)
PARTIAL_ROUNDS = Family(
    "partial_rounds",
    "Rounds of windows judged without some ranks since the server started; lower = better.",
    "counter",
)
UNJUDGED_ROUNDS = Family(
    "unjudged_rounds", "Rounds of windows that are closed and wait for their verdict; lower = better."
)
OBSERVATIONS = Family(
    "ingest_observations",
    "Observations by what became of them since the server started: accepted, late (window closed), beyond "
    "(not in the sketch), duplicate (message sent again), rejected (invalid), dropped (by the client, never "
    "sent); late, rejected, dropped: lower = better.",
    "counter",
)
CHECKPOINTS = Family("checkpoints", "Checkpoints registered by the run; higher = more to choose from.")
OTHER_GROUPS = Family(
    "other_groups", "Groups of the run that share the series of the group named other; 0 = each has its own."
)

FAMILIES = (
    *(INFO, ACTION, STEP, CLOSED_STEP, ATTEMPT, ACTIVE, STALE, STOP, AGE, EXPECTED_RANKS, CONNECTED_RANKS),
    *(MISSING_RANKS, PARTIAL_ROUNDS, UNJUDGED_ROUNDS, OBSERVATIONS, CHECKPOINTS, OTHER_GROUPS),
)


def run_points(
    labels: Labels, view: RunView, signal: signal_pb2.Signal, now: float, other_groups: int
) -> Iterator[Point]:
    """All points of one run; `signal` as it reads `now`, seconds since the epoch."""
    run, health = view.run, view.health
    yield INFO, _info(labels, run), 1
    for action in Action:
        yield ACTION, labels.and_("action", action.name), int(int(signal.action) == action)
    yield STEP, labels, run.step
    yield CLOSED_STEP, labels, run.closed_step
    yield ATTEMPT, labels, run.attempt
    is_active = run.state == run_pb2.RUN_STATE_ACTIVE
    yield ACTIVE, labels, int(is_active)
    yield STALE, labels, int(view.is_stale(now))
    if signal.HasField("stop_at_step"):
        yield STOP, labels, signal.stop_at_step
    if is_active:
        yield AGE, labels, max(0.0, now - view.updated_at)
    if signal.HasField("best_checkpoint_step"):
        yield BEST, labels.and_("group", ""), signal.best_checkpoint_step
    yield EXPECTED_RANKS, labels, run.world_size
    yield CONNECTED_RANKS, labels, health.connected_ranks
    yield MISSING_RANKS, labels, len(health.missing_ranks)
    yield PARTIAL_ROUNDS, labels, health.partial_rounds
    yield UNJUDGED_ROUNDS, labels, health.unjudged_rounds
    for result, count in health.observations.items():
        yield OBSERVATIONS, labels.and_("result", result), count
    yield CHECKPOINTS, labels, view.checkpoints
    yield OTHER_GROUPS, labels, other_groups


def _info(labels: Labels, run: run_pb2.Run) -> Labels:
    config = run.config
    is_stream = config.mode == run_pb2.OBSERVATION_MODE_STREAM
    info = labels.and_("mode", "stream" if is_stream else "probe")
    info = info.and_("layers", str(config.topology.layers)).and_("experts", str(config.topology.experts))
    return info.and_("policy", config.policy)
