"""Whatever is written, in whatever order: what SQLite answers, Redis answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.phases.verdict import Checkpoint, Phase
from pathwatch.server.store.interface import Store
from pathwatch.server.store.rows import (
    BatchRow,
    BeginAttempt,
    DeleteRun,
    ForgetSession,
    GeometryRow,
    PartialRoundRow,
    PutBatch,
    PutCheckpoint,
    PutGeometry,
    PutPartialRound,
    PutRank,
    PutRound,
    PutRun,
    PutSession,
    PutSignal,
    RankRow,
    Rewind,
    RunRow,
    SessionRow,
    SignalRow,
    WindowRow,
    Write,
)

RUNS = ("one", "two")
GROUPS = ("code", "co", "mathé")
run_names, group_names = st.sampled_from(RUNS), st.sampled_from(GROUPS)
attempts, steps, numbers = st.integers(0, 3), st.integers(0, 12), st.integers(0, 5)
blobs = st.binary(max_size=6)
floats = st.floats(allow_nan=False)


def rounds(run: str, attempt: int, step: int, groups: dict[str, Any], observations: bytes) -> PutRound:
    windows = tuple(
        WindowRow(
            run=run,
            attempt=attempt,
            first_step=step - 1,
            step=step,
            group=group,
            partial=partial,
            judged=not partial,
            phase=phase,
            reason=f"so it is: \N{GREEK SMALL LETTER TAU} {blob!r}",
            metrics={"train_loss": value},
            layer_path_distance=(value, 0.1),
            evidence=blob,
            losses=blob * 2,
        )
        for group, (partial, phase, value, blob) in sorted(groups.items())
    )
    return PutRound(run=run, attempt=attempt, step=step, windows=windows, observations=observations)


def run_row(run: str, attempt: int, step: int, created: float) -> PutRun:
    row = RunRow(
        name=run,
        config=run.encode(),
        finished=step > 10,
        attempt=attempt,
        first_step=-1,
        step=step,
        closed_step=step - 1,
        world_size=2,
        groups=GROUPS[: step % 3],
        created_at=created,
        updated_at=created + step,
    )
    return PutRun(row=row)


told_windows = st.dictionaries(
    group_names, st.tuples(st.booleans(), st.sampled_from(Phase), floats, blobs), max_size=3
)
writes = st.one_of(
    st.builds(run_row, run_names, attempts, steps, st.floats(0, 9)),
    st.builds(
        lambda run, attempt, rank, mark: PutRank(
            row=RankRow(run=run, attempt=attempt, rank=rank, world_size=6, watermark=mark)
        ),
        *(run_names, attempts, numbers, st.integers(-1, 2**62)),
    ),
    st.builds(
        lambda run, attempt, rank, life, last: PutSession(
            row=SessionRow(run=run, attempt=attempt, rank=rank, session=life, last_sequence=last)
        ),
        *(run_names, attempts, numbers, st.sampled_from(["a", "b:1"]), st.integers(0, 2**62)),
    ),
    st.builds(
        lambda run, attempt, rank: ForgetSession(run=run, attempt=attempt, rank=rank, session="a"),
        *(run_names, attempts, numbers),
    ),
    st.builds(
        lambda run, attempt, step, blob: PutBatch(
            row=BatchRow(run=run, attempt=attempt, step=step, batch=blob)
        ),
        *(run_names, attempts, steps, blobs),
    ),
    st.builds(
        lambda run, attempt, step, blob: PutGeometry(
            row=GeometryRow(run=run, attempt=attempt, step=step, geometry=blob)
        ),
        *(run_names, attempts, steps, blobs),
    ),
    st.builds(
        lambda run, attempt, step, ranks: PutPartialRound(
            row=PartialRoundRow(run=run, attempt=attempt, step=step, missing_ranks=tuple(ranks))
        ),
        *(run_names, attempts, steps, st.lists(numbers, max_size=3)),
    ),
    st.builds(rounds, run_names, attempts, steps, told_windows, blobs),
    st.builds(
        lambda run, revision, step, blob: PutSignal(
            row=SignalRow(run=run, revision=revision, step=step, signal=blob)
        ),
        *(run_names, st.integers(1, 12), st.integers(-1, 12), blobs),
    ),
    st.builds(
        lambda run, attempt, step, tag: PutCheckpoint(
            run=run, checkpoint=Checkpoint(step=step, tag=tag, attempt=attempt)
        ),
        *(run_names, attempts, steps, st.text(st.characters(exclude_categories=["Cs"]), max_size=3)),
    ),
    st.builds(
        lambda run, attempt, step: BeginAttempt(run=run, attempt=attempt, closed_step=step),
        *(run_names, attempts, st.integers(-1, 12)),
    ),
    st.builds(
        lambda run, attempt, step, back: Rewind(
            run=run, attempt=attempt, first_step=step, first_window_step=max(0, step - back)
        ),
        *(run_names, attempts, steps, st.integers(0, 2)),
    ),
    st.builds(DeleteRun, run=run_names),
)


def said(store: Store) -> dict[str, Any]:
    """Everything that it answers."""
    told: dict[str, Any] = {"runs": store.runs()}
    for run in RUNS:
        history = store.history(run)
        few = store.history(run, after_step=4, group="co", limit=2, signal_limit=3)
        told[run] = {
            "ranks": [store.ranks(run, attempt) for attempt in range(4)],
            "sessions": [store.sessions(run, attempt) for attempt in range(4)],
            "batches": list(store.batches(run)),
            "geometries": store.geometries(run),
            "partial_rounds": store.partial_rounds(run),
            "windows": list(store.windows(run)),
            "newest_windows": store.newest_windows(run),
            "checkpoints": store.checkpoints(run),
            "last_signal": store.last_signal(run),
            "signals": store.signals(run),
            "some signals": store.signals(run, after_revision=3, limit=2),
            "history": (history.windows, history.signals, history.closed_step),
            "few": (few.windows, few.signals, few.closed_step),
            "thinned": store.thinned_history(run, GROUPS, points=4, after_step=1),
            "observations": list(store.observations(run, after_step=2)),
        }
    return told


def in_life(commits: Sequence[Sequence[Write]]) -> list[list[Write]]:
    """Without rounds of an attempt that a newer one has superseded there: no server judges those."""
    rewound: dict[str, list[tuple[int, int]]] = {run: [] for run in RUNS}
    kept: list[list[Write]] = []
    for commit in commits:
        kept.append([])
        for write in commit:
            if isinstance(write, DeleteRun):
                rewound[write.run].clear()
            if isinstance(write, Rewind):
                rewound[write.run].append((write.attempt, write.first_step))
            if isinstance(write, PutRound):
                newest = max((attempt for attempt, _ in rewound[write.run]), default=0)
                if write.attempt != newest:
                    continue
            kept[-1].append(write)
    return [commit for commit in kept if commit]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(commits=st.lists(st.lists(writes, min_size=1, max_size=8), min_size=1, max_size=8))
def test_engines_agree(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[str, Path], Callable[[], Store]],
    commits: list[list[Write]],
) -> None:
    opened = {name: new_store(name, tmp_path_factory.mktemp("engine")) for name in ("sqlite", "redis")}
    answers = []
    for open_engine in opened.values():
        with closing(open_engine()) as store:
            for commit in in_life(commits):
                store.commit(commit)
        with closing(open_engine()) as store:
            answers.append(said(store))
    assert answers[0] == answers[1]
