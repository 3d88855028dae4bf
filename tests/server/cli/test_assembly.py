"""Kept rounds as a trace: which steps, samples and arrays are in it, and what is said of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pathwatch.client import to_tensor
from pathwatch.server.cli.assembly import AssemblyError, assemble
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.v1 import routing_pb2, signal_pb2

L, K = 2, 4


def group(name: str, ids: list[int], *, step: int = 0, **changes: Any) -> signal_pb2.GroupObservations:
    """Weights and losses are a function of step and sample id, so that every place can be told."""
    ids_N = np.array(sorted(ids), dtype=np.int64)
    content: dict[str, Any] = {
        "sample_ids": ids_N,
        "losses": loss(step, ids_N),
        "weights": weights(step, ids_N),
        "token_counts": np.ones(len(ids), dtype=np.int64),
        **changes,
    }
    partial = content.pop("partial", False)
    tensors = {field: to_tensor(array) for field, array in content.items()}
    return signal_pb2.GroupObservations(group=name, partial=partial, **tensors)


def loss(step: int, ids_N: Any) -> Any:
    return (np.asarray(ids_N) + step / 1000).astype(np.float32)


def weights(step: int, ids_N: Any, dtype: type[np.floating] = np.float16) -> Any:
    share = (np.asarray(ids_N) % 8 + 1 + step / 100)[:, None, None] / 16 * np.ones((1, L, 1))
    return np.concatenate([share, 1 - share, 0 * share, 0 * share], axis=-1).astype(dtype)


def round_at(step: int, *groups: signal_pb2.GroupObservations, geometry: bool = False) -> Any:
    message = signal_pb2.RoundObservations(first_step=step, step=step, groups=groups)
    if geometry:
        message.geometry.CopyFrom(
            routing_pb2.ExpertGeometry(
                step=step,
                gram_self=to_tensor(np.full((L, K, K), step, dtype=np.float32)),
                gram_next=to_tensor(np.full((L - 1, K, K), -step, dtype=np.float32)),
            )
        )
    return message


def test_the_samples_of_every_window_at_every_step() -> None:
    rounds = [
        round_at(10, group("a", [1, 2, 3], step=10), group("b", [7, 8, 9], step=10)),
        round_at(20, group("a", [2, 3, 4], step=20), group("b", [7, 8, 9], step=20)),
    ]
    assembled = assemble("run", rounds, ["b", "a"])
    trace = assembled.trace
    assert (trace.name, trace.groups, trace.steps_T.tolist()) == ("run", ("b", "a"), [10, 20])
    kept = trace.meta["sample_ids"]
    assert kept["a"] == [2, 3]  # type: ignore[index]
    # Of three equally lasting samples the two that come first in the sketch's own order.
    ids = np.array([7, 8, 9])
    assert kept["b"] == sorted(ids[np.argsort(sample_hash("run", "b", ids))][:2].tolist())  # type: ignore[index]
    for t, step in enumerate((10, 20)):
        for g, name in enumerate(("b", "a")):
            mine = kept[name]  # type: ignore[index]
            np.testing.assert_array_equal(trace.losses_TGN[t, g], loss(step, mine))
            np.testing.assert_array_equal(trace.weights_TGNLK[t, g], weights(step, mine))
    assert trace.weights_TGNLK.dtype == np.float16
    assert (trace.target_weights_TGNLK, trace.targets_GN, trace.visits_TGN) == (None, None, None)
    assert trace.gram_self_TLKK is None
    assert assembled.remarks == (
        "2 of 4 samples of group 'a' are not in every window: left out",
        "1 of 3 samples of group 'b' are left out: a trace has as many of every group, and 'a' has 2",
    )


def test_steps_without_a_whole_window_of_every_group_are_left_out() -> None:
    rounds = [
        round_at(10, group("a", [1])),
        round_at(20, group("a", [1]), group("b", [5])),
        round_at(30, group("a", [1], partial=True), group("b", [5])),
        round_at(40, group("a", [1]), group("b", [5]), group("c", [9], partial=True)),
    ]
    assembled = assemble("run", rounds, ["a", "b"])
    assert assembled.trace.steps_T.tolist() == [20, 40]
    assert assembled.remarks == (
        "group 'b' has no window at 1 of 4 steps, which are left out",
        "group 'a' has only part of a window at 1 of 4 steps, which are left out",
    )
    with pytest.raises(AssemblyError, match=r"no step at which every group.*'c' has only part"):
        assemble("run", rounds, ["a", "b", "c"])


def test_nothing_kept_is_said() -> None:
    with pytest.raises(AssemblyError, match="no round was kept"):
        assemble("run", [], ["a"])


def test_windows_of_different_samples_make_no_trace() -> None:
    with pytest.raises(AssemblyError, match=r"'a' has no sample that is in all its 2 windows"):
        assemble("run", [round_at(10, group("a", [1, 2])), round_at(20, group("a", [3]))], ["a"])


def test_optional_arrays_are_there_where_a_window_has_them() -> None:
    some = np.array([-1, 4], dtype=np.int32)
    target = weights(50, [5, 6])
    rounds = [
        round_at(10, group("a", [1, 2], step=10, targets=some), group("b", [1, 2], step=10), geometry=True),
        round_at(
            20,
            group("a", [1, 2], step=20, targets=some, visits=some + 1, target_weights=target),
            group("b", [1, 2], step=20),
            geometry=True,
        ),
    ]
    trace = assemble("run", rounds, ["a", "b"]).trace
    assert trace.targets_GN is not None
    assert trace.targets_GN.tolist() == [[-1, 4], [-1, -1]]
    assert trace.visits_TGN is not None
    assert trace.visits_TGN.tolist() == [[[-1, -1], [-1, -1]], [[0, 5], [-1, -1]]]
    assert trace.target_weights_TGNLK is not None
    np.testing.assert_array_equal(trace.target_weights_TGNLK[1, 0], target)
    np.testing.assert_array_equal(trace.target_weights_TGNLK[0], trace.weights_TGNLK[0])
    assert trace.gram_self_TLKK is not None
    assert trace.gram_next_TLKK is not None
    assert trace.gram_self_TLKK[:, 0, 0, 0].tolist() == [10, 20]
    assert trace.gram_next_TLKK[:, 0, 0, 0].tolist() == [-10, -20]


def test_what_a_trace_cannot_hold_is_left_out_and_said() -> None:
    first, then = (np.array([3, value], dtype=np.int32) for value in (4, 5))
    rounds = [
        round_at(10, group("a", [1, 2], targets=first)),
        round_at(20, group("a", [1, 2], targets=then), geometry=True),
    ]
    assembled = assemble("run", rounds, ["a"])
    assert assembled.trace.targets_GN is not None
    assert assembled.trace.targets_GN.tolist() == [[3, -1]]
    assert assembled.trace.gram_self_TLKK is None
    assert assembled.remarks == (
        "router geometry is missing at 1 of 2 steps: all left out",
        "the targets of 1 samples change: left out",
    )


def test_weights_keep_their_precision() -> None:
    third = np.full((2, L, K), 1 / K, dtype=np.float32) * np.array([1.0001, 0.9999] * 2, dtype=np.float32)
    rounds = [round_at(10, group("a", [1, 2])), round_at(20, group("a", [1, 2], weights=third))]
    assembled = assemble("run", rounds, ["a"])
    assert assembled.trace.weights_TGNLK.dtype == np.float32
    np.testing.assert_array_equal(assembled.trace.weights_TGNLK[1, 0], third)
    np.testing.assert_array_equal(assembled.trace.weights_TGNLK[0, 0], weights(0, [1, 2]))
    assert assembled.remarks == ()


def test_rows_as_inexact_as_bfloat16_become_rows_that_a_trace_may_hold() -> None:
    rough = np.full((1, L, K), 0.25 * 1.003, dtype=np.float32)
    assembled = assemble("run", [round_at(10, group("a", [1], weights=rough))], ["a"])
    assert assembled.trace.weights_TGNLK.dtype == np.float16
    np.testing.assert_allclose(assembled.trace.weights_TGNLK[0, 0], rough, rtol=2**-11)
    assert ["rounded to float16" in remark for remark in assembled.remarks] == [True]
