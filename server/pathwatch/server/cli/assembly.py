"""Kept rounds of a run put together as a trace: the same samples of every group at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.client import from_tensor
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.traces import ROW_TOLERANCE, Trace
from pathwatch.v1 import signal_pb2, tensor_pb2


class AssemblyError(ValueError):
    """The rounds do not make a trace; the message is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A trace, and what of the run is not in it."""

    trace: Trace
    """Its `meta` holds the run's name and the sample ids of each group, in the order of the samples."""
    remarks: tuple[str, ...]
    """What was left out or rounded, in words."""


@dataclass(frozen=True, slots=True)
class _Point:
    """One step of the trace."""

    round: signal_pb2.RoundObservations
    windows: Mapping[str, signal_pb2.GroupObservations]


def assemble(run: str, rounds: Iterable[signal_pb2.RoundObservations], groups: Sequence[str]) -> Assembled:
    """The rounds in which every group has a whole window, with the samples that all of these hold.

    Where that leaves groups of different sizes, the smallest decides: of the others the samples of lowest
    hash stay, those that a smaller sketch would have kept. Raises AssemblyError.
    """
    remarks: list[str] = []
    points = _whole_points(rounds, groups, remarks)
    if not points:
        why = "; ".join(remarks) or "no round was kept"
        raise AssemblyError(f"run {run!r} has no step at which every group has a whole window: {why}")
    ids = _samples(run, points, groups, remarks)

    def stacked(take: Callable[[signal_pb2.GroupObservations], NDArray[Any]]) -> NDArray[Any]:
        """[T, G, n, …] of what `take` gives for each window, [N, …]."""
        return np.array(
            [
                [take(p.windows[group])[_rows(p.windows[group], ids[group])] for group in groups]
                for p in points
            ]
        )

    target_weights = None
    if any(window.HasField("target_weights") for point in points for window in point.windows.values()):
        target_weights = stacked(
            lambda w: from_tensor(w.target_weights if w.HasField("target_weights") else w.weights)
        )
        target_weights = _of_a_precision("target_weights", target_weights, remarks)
    targets_TGN = stacked(lambda window: _or_unknown(window.targets, window))
    visits_TGN = stacked(lambda window: _or_unknown(window.visits, window))
    gram_self, gram_next = _grams(points, remarks)
    trace = Trace(
        name=run,
        steps_T=np.array([point.round.step for point in points], dtype=np.int64),
        groups=tuple(groups),
        losses_TGN=stacked(lambda window: from_tensor(window.losses)).astype(np.float32),
        weights_TGNLK=_of_a_precision(
            "weights", stacked(lambda window: from_tensor(window.weights)), remarks
        ),
        target_weights_TGNLK=target_weights,
        targets_GN=_lasting(targets_TGN, remarks) if (targets_TGN >= 0).any() else None,
        visits_TGN=visits_TGN if (visits_TGN >= 0).any() else None,
        gram_self_TLKK=gram_self,
        gram_next_TLKK=gram_next,
        meta={"run": run, "sample_ids": {group: ids[group].tolist() for group in groups}},
    )
    return Assembled(trace=trace, remarks=tuple(remarks))


def _whole_points(
    rounds: Iterable[signal_pb2.RoundObservations], groups: Sequence[str], remarks: list[str]
) -> list[_Point]:
    points, missing, partial, seen = [], Counter[str](), Counter[str](), 0
    for round_ in rounds:
        windows = {window.group: window for window in round_.groups if window.group in groups}
        absent = [group for group in groups if group not in windows]
        broken = [group for group, window in windows.items() if window.partial]
        missing.update(absent)
        partial.update(broken)
        seen += 1
        if not absent and not broken:
            points.append(_Point(round_, windows))
    for counts, what in ((missing, "no window"), (partial, "only part of a window")):
        for group, count in sorted(counts.items()):
            remarks.append(f"group {group!r} has {what} at {count} of {seen} steps, which are left out")
    return points


def _samples(
    run: str, points: Sequence[_Point], groups: Sequence[str], remarks: list[str]
) -> dict[str, NDArray[np.int64]]:
    """Sample ids of each group, ascending, as many in each."""
    lasting: dict[str, NDArray[np.int64]] = {}
    for group in groups:
        windows = [from_tensor(point.windows[group].sample_ids) for point in points]
        lasting[group] = reduce(np.intersect1d, windows)
        seen = len(reduce(np.union1d, windows))
        if not lasting[group].size:
            raise AssemblyError(
                f"group {group!r} has no sample that is in all its {len(points)} windows; a trace holds the "
                "same samples at every step"
            )
        if gone := seen - len(lasting[group]):
            remarks.append(f"{gone} of {seen} samples of group {group!r} are not in every window: left out")
    smallest = min(groups, key=lambda group: len(lasting[group]))
    n = len(lasting[smallest])
    for group, ids_N in lasting.items():
        if gone := len(ids_N) - n:
            remarks.append(
                f"{gone} of {len(ids_N)} samples of group {group!r} are left out: a trace has as many of "
                f"every group, and {smallest!r} has {n}"
            )
            lasting[group] = np.sort(ids_N[np.argsort(sample_hash(run, group, ids_N))[:n]])
    return lasting


def _rows(window: signal_pb2.GroupObservations, ids_N: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where the samples are in the window, whose ids ascend."""
    return np.searchsorted(from_tensor(window.sample_ids), ids_N)


def _or_unknown(tensor: tensor_pb2.Tensor, window: signal_pb2.GroupObservations) -> NDArray[Any]:
    """Targets or visits; -1 where the window has none."""
    return from_tensor(tensor) if tensor.shape else np.full(window.sample_ids.shape, -1, dtype=np.int32)


def _of_a_precision(name: str, weights: NDArray[Any], remarks: list[str]) -> NDArray[Any]:
    """The weights; as float16 if their rows sum to one only as closely as those of half precision must."""
    off = np.abs(weights.sum(axis=-1, dtype=np.float64) - 1).max()
    if off <= ROW_TOLERANCE[weights.dtype.name]:
        return weights
    remarks.append(f"{name} came in half precision, other than float16 or in fragments: rounded to float16")
    return weights.astype(np.float16)


def _lasting(targets_TGN: NDArray[np.int32], remarks: list[str]) -> NDArray[np.int32]:
    """[G, n] targets; -1 where they change."""
    changing_GN = (targets_TGN != targets_TGN[0]).any(axis=0)
    if changing_GN.any():
        remarks.append(f"the targets of {np.count_nonzero(changing_GN)} samples change: left out")
    return np.where(changing_GN, np.int32(-1), targets_TGN[0])


def _grams(
    points: Sequence[_Point], remarks: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[None, None]:
    """[T, L, K, K] and [T, L-1, K, K]; a trace has them of every step or not at all."""
    geometries = [point.round.geometry for point in points if point.round.HasField("geometry")]
    if without := len(points) - len(geometries):
        if geometries:
            remarks.append(f"router geometry is missing at {without} of {len(points)} steps: all left out")
        return None, None
    return (
        np.array([from_tensor(geometry.gram_self) for geometry in geometries]),
        np.array([from_tensor(geometry.gram_next) for geometry in geometries]),
    )
