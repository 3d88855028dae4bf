"""Changes out of stored signals, also where one of them is damaged."""

from __future__ import annotations

from typing import Any

import pytest

from pathwatch.server.changes.diff import BestCheckpointChange
from pathwatch.server.changes.reading import changes_by_revision
from pathwatch.server.store.rows import SignalRow
from pathwatch.v1 import signal_pb2

UNHEARD_OF: Any = 77
DAMAGED = {
    "not to be decoded": b"\xff\xff",
    "an unknown action": signal_pb2.Signal(action=UNHEARD_OF).SerializeToString(),
    "an unknown phase": signal_pb2.Signal(
        action=signal_pb2.ACTION_CONTINUE, groups=[signal_pb2.GroupStatus(group="math", phase=UNHEARD_OF)]
    ).SerializeToString(),
}


def row(revision: int, content: bytes | None = None) -> SignalRow:
    """Its best checkpoint is at ten times the revision."""
    signal = signal_pb2.Signal(
        run="run",
        revision=revision,
        action=signal_pb2.ACTION_CONTINUE,
        groups=[signal_pb2.GroupStatus(group="math", phase=signal_pb2.PHASE_LEARNING)],
        best_checkpoint_step=10 * revision,
    )
    stored = signal.SerializeToString() if content is None else content
    return SignalRow(run="run", revision=revision, step=revision, signal=stored)


def bests(rows: list[SignalRow], seen: int) -> list[tuple[int, list[tuple[int | None, int | None]]]]:
    """Of each revision, which best checkpoint followed which."""
    return [
        (revision, [(one.before, one.after) for one in told if isinstance(one, BestCheckpointChange)])
        for revision, told in changes_by_revision(rows, seen)
    ]


def test_each_is_compared_with_the_one_before() -> None:
    assert bests([row(1), row(2)], 0) == [(1, [(None, 10)]), (2, [(10, 20)])]
    assert bests([row(2), row(3)], 2) == [(3, [(20, 30)])]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_passed_over_and_said(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(1), row(2, content), row(3)]
    assert bests(rows, 1) == [(2, []), (3, [(10, 30)])]
    assert bests([row(1, content), row(2)], 0) == [(1, []), (2, [(None, 20)])]
    (said, _) = (record.getMessage() for record in caplog.records)
    assert said.startswith("signal 2 of run 'run' cannot be read (")


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_compared_is_not_told_as_new(content: bytes) -> None:
    assert bests([row(2, content), row(3), row(4)], 2) == [(3, []), (4, [(30, 40)])]
    assert bests([row(2, content)], 1) == [(2, [])], "whoever reads on does not come back to it for ever"
