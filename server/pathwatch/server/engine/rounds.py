"""The work on one closed round: metrics, evidence, verdict. Runs on the compute pool."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pathwatch.server.engine.arrays import pack
from pathwatch.server.engine.group_work import GroupResult, GroupWork
from pathwatch.server.engine.hosting.process import HostedError
from pathwatch.server.engine.judge import (
    Judge,
    Judgement,
    PluginFailureError,
    PluginLostError,
    SampleLosses,
    pack_losses,
)
from pathwatch.server.engine.kept_rounds import pack_round
from pathwatch.server.engine.pair_work import Pair, PairWork
from pathwatch.server.engine.run_config import metric_settings
from pathwatch.server.metrics.plugin import Metric
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.verdict import Checkpoint, Evidence, Phase
from pathwatch.server.sketch.run_sketch import Round
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2

if TYPE_CHECKING:
    from pathwatch.server.metrics.summary import GroupMetrics

log = logging.getLogger("pathwatch.server")

NAMED_RANKS = 8
"""Missing ranks that a reason names; there may be thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRound:
    """What became of a round."""

    round: Round
    windows: tuple[WindowRow, ...]
    judgement: Judgement
    observations: bytes
    """For the store (`kept_rounds`), where the run keeps them; else empty."""


def judge_round(
    run: str,
    config: run_pb2.RunConfig,
    round_: Round,
    geometry: Geometry | None,
    judge: Judge,
    checkpoints: Sequence[Checkpoint],
    work: Mapping[str, GroupWork],
    pairs: Mapping[Pair, PairWork],
) -> JudgedRound:
    """Compute and judge a round; the judge must have taken all rounds before it.

    `work` is that of each of its groups, `pairs` that of each two; other threads may do, or have done, some
    of it.
    """
    for of_group in work.values():
        of_group.do()
    results = {group: of_group.result() for group, of_group in work.items()}
    for of_pair in pairs.values():
        of_pair.do()
    cross = {pair: of_pair.result() for pair, of_pair in pairs.items()}
    metrics = _metrics(config, round_, geometry, judge.metrics, results, cross)
    losses = {group: result.losses for group, result in results.items()}
    evidence: Mapping[str, bytes] = {}
    ranks = _some(round_.missing_ranks)
    unjudged = f"Data of rank {ranks} is missing at step {round_.step}." if ranks else None
    if not round_.windows:
        unjudged = unjudged or f"No sample came whole at step {round_.step}."
    judgement = None
    if unjudged is None:
        try:
            measured = {
                group: _evidence(result, round_.windows, group, judge) for group, result in results.items()
            }
            evidence = {group: pack(arrays) for group, arrays in measured.items()}
        except (PluginFailureError, ValueError) as failure:
            unjudged = str(failure)
    if unjudged is None:
        try:
            judgement = judge.take(round_.step, measured, losses, checkpoints)
        except PluginLostError as failure:
            # A round that a plug-in did not survive is never given to it again.
            unjudged, evidence = str(failure), {}
    if judgement is None:
        judgement = judge.pass_over(round_.step, round_.windows, unjudged or "", checkpoints)
    rows = []
    for group, result in results.items():
        verdict = judgement.verdicts.get(group)
        values = dict(metrics[group].values)
        if group in judgement.memorized_ratio:
            values["memorized_ratio"] = judgement.memorized_ratio[group]
        layers_L = metrics[group].layer_path_distance_L
        rows.append(
            WindowRow(
                run=run,
                attempt=round_.attempt,
                first_step=round_.first_step,
                step=round_.step,
                group=group,
                # Of groups worked on ahead it was not known that ranks would be missing.
                partial=result.partial or bool(round_.missing_ranks),
                judged=unjudged is None,
                phase=verdict.phase if verdict else Phase.UNKNOWN,
                reason=unjudged or (verdict.reason if verdict else "The detector said nothing."),
                metrics={name: value for name, value in sorted(values.items()) if math.isfinite(value)},
                layer_path_distance=() if layers_L is None else tuple(layers_L.tolist()),
                evidence=evidence.get(group, b""),
                losses=pack_losses(losses[group]),
            )
        )
    if not round_.windows:
        # A judge that is built anew from stored rounds must know of this one, too.
        rows = [_empty_window(run, round_, group, unjudged or "") for group in judgement.verdicts]
    return JudgedRound(
        round=round_,
        windows=tuple(rows),
        judgement=judgement,
        observations=pack_round(round_, geometry) if config.keep_observations else b"",
    )


def _evidence(result: GroupResult, windows: Mapping[str, WindowArrays], group: str, judge: Judge) -> Evidence:
    if result.failure is not None:
        raise result.failure
    return judge.measure(windows[group]) if result.evidence is None else result.evidence


def _some(ranks: Sequence[int]) -> str:
    """The first few ranks by number, and how many more there are."""
    named = ", ".join(str(rank) for rank in ranks[:NAMED_RANKS])
    return f"{named} and {len(ranks) - NAMED_RANKS} more" if len(ranks) > NAMED_RANKS else named


def _empty_window(run: str, round_: Round, group: str, reason: str) -> WindowRow:
    return WindowRow(
        run=run,
        attempt=round_.attempt,
        first_step=round_.first_step,
        step=round_.step,
        group=group,
        partial=True,
        judged=False,
        phase=Phase.UNKNOWN,
        reason=reason,
        metrics={"window_samples": 0.0},
        layer_path_distance=(),
        evidence=b"",
        losses=pack_losses(SampleLosses(sample_ids_N=np.zeros(0, np.int64), losses_N=np.zeros(0))),
    )


def _metrics(
    config: run_pb2.RunConfig,
    round_: Round,
    geometry: Geometry | None,
    plugins: Mapping[str, Metric],
    results: Mapping[str, GroupResult],
    cross: Mapping[Pair, float],
) -> dict[str, GroupMetrics]:
    from pathwatch.server.metrics.summary import GroupMetrics, combined

    windows = dict(round_.windows) if plugins else {}
    parts = {group: result.part for group, result in results.items()}
    computed = combined(parts, metric_settings(config), cross)
    return {
        group: GroupMetrics(
            values=dict(metrics.values) | _plugin_metrics(plugins, windows, group, geometry),
            layer_path_distance_L=metrics.layer_path_distance_L,
        )
        for group, metrics in computed.items()
    }


def _plugin_metrics(
    plugins: Mapping[str, Metric],
    windows: Mapping[str, WindowArrays],
    group: str,
    geometry: Geometry | None,
) -> dict[str, float]:
    values: dict[str, float] = {}
    others = [window for name, window in windows.items() if name != group]
    for name, metric in plugins.items():
        try:
            values |= {key: float(v) for key, v in metric(windows[group], others, geometry).items()}
        except HostedError:
            pass  # said in the log by its process
        except Exception:  # a plug-in may fail in any way; its values are then absent
            log.exception("the metric plug-in %r failed on group %r", name, group)
    return values
