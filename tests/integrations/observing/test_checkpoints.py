"""Which checkpoints are known, which may go, and what happens in their folders."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.observing.checkpoint_folders import deletable, link, link_name
from pathwatch.integrations.observing.checkpoint_keeper import CheckpointKeeper
from pathwatch.integrations.observing.checkpoints import (
    Checkpoints,
    SavedCheckpoint,
    SavedCheckpoints,
    superfluous,
)
from pathwatch.v1 import run_pb2, signal_pb2

STEPS = st.sets(st.integers(0, 50), min_size=1)


@st.composite
def rankings(draw: st.DrawFn, steps: set[int]) -> list[list[int]]:
    """Overall and of some groups: each an order of what the service has heard of."""
    known = sorted(draw(st.sets(st.sampled_from(sorted(steps)))))
    return [draw(st.permutations(known)) for _ in range(draw(st.integers(1, 3)))]


@given(st.data(), STEPS, st.integers(1, 4))
def test_what_may_go_is_neither_new_nor_preferred(data: st.DataObject, steps: set[int], keep: int) -> None:
    orders = data.draw(rankings(steps))
    saved = [SavedCheckpoint(step=step, tag=str(step)) for step in sorted(steps)]
    gone = {checkpoint.step for checkpoint in superfluous(saved, orders, keep)}
    left = sorted(steps - gone)
    assert left[-keep:] == sorted(steps)[-keep:]
    for order in orders:
        assert order[:keep] == [step for step in order if step in left][: len(order[:keep])]
    assert gone <= set(orders[0])
    # Nothing else is kept: what is left is new, preferred or not yet known to the service.
    for step in left:
        new = sum(other > step for other in steps) < keep
        preferred = any(step in order[:keep] for order in orders)
        assert new or preferred or step not in orders[0]


def test_a_checkpoint_told_twice_is_news_once(tmp_path: Path) -> None:
    saved = SavedCheckpoints()
    assert saved.add(5, "step5", tmp_path / "step5") == "step5"
    assert saved.add(5, "step5", None) is None
    assert saved.add(5, None, None) is None
    assert saved.add(6, None, None) == "global_step6"
    (first, _) = saved
    assert (first.tag, first.path) == ("step5", str(tmp_path / "step5"))


def test_what_was_saved_after_a_rewind_s_step_is_forgotten_and_the_rest_travels() -> None:
    saved, later = SavedCheckpoints(), SavedCheckpoints()
    for step in (2, 4, 6):
        saved.add(step, None, None)
    saved.rewind(4)
    later.load_state_dict(saved.state_dict())
    assert [checkpoint.step for checkpoint in later] == [2, 4]


def folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir(parents=True)
    (path / "weights.pt").write_text("…")
    return path


def test_a_link_is_relative_and_follows_the_choice(tmp_path: Path) -> None:
    first, second = folder(tmp_path, "step1"), folder(tmp_path, "step2")
    for chosen in (first, second, second):
        link(chosen, "best")
        assert (tmp_path / "best").readlink() == Path(chosen.name)
    assert (tmp_path / "best" / "weights.pt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"step1", "step2", "best"}


@given(st.text(min_size=1), st.text(min_size=1))
def test_link_names_are_safe_and_tell_groups_apart(one: str, other: str) -> None:
    for group in (one, other):
        name = link_name(group)
        assert name.isascii()
        assert not set(name) & set('/\\:*?"<>| \0')
    assert (link_name(one) == link_name(other)) == (one == other)


def test_without_symlinks_the_link_is_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for name in ("step1", "step2"):
        link(folder(tmp_path, name), "best")
        assert (tmp_path / "best").read_text() == f"{name}\n"
    assert not deletable(tmp_path / "step2")
    assert deletable(tmp_path / "step1")


def test_what_is_no_link_of_ours_stays(tmp_path: Path) -> None:
    checkpoint = folder(tmp_path, "step1")
    folder(tmp_path, "best")
    (tmp_path / "best-a").write_text("my notes")
    for name in ("best", "best-a"):
        with pytest.raises(FileExistsError, match="no link of ours"):
            link(checkpoint, name)
    assert (tmp_path / "best-a").read_text() == "my notes"


class Ranks:
    """Stands in for the sidecar: gives rankings by group, or no answer."""

    def __init__(self) -> None:
        self.steps: dict[str | None, list[int]] | None = {}

    def ranking(self, group: str | None = None) -> Sequence[run_pb2.Checkpoint] | None:
        if self.steps is None:
            return None
        return [run_pb2.Checkpoint(step=step, tag=f"step{step}") for step in self.steps.get(group, [])]


@pytest.fixture
def keeping(tmp_path: Path) -> Callable[..., Any]:
    """A keeper over saved folders step0 … step9, `latest` naming step9, and the rankings it asks for."""

    def make(**settings: Any) -> tuple[CheckpointKeeper, Ranks, SavedCheckpoints]:
        saved, ranks = SavedCheckpoints(), Ranks()
        for step in range(10):
            saved.add(step, f"step{step}", folder(tmp_path, f"step{step}"))
        (tmp_path / "latest").write_text("step9")
        return CheckpointKeeper(Checkpoints(**settings), saved, ranks), ranks, saved  # type: ignore[arg-type]

    return make


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_nothing_is_deleted_unless_asked(keeping: Callable[..., Any], tmp_path: Path) -> None:
    keeper, ranks, _ = keeping()
    ranks.steps = {None: [3, *range(9, -1, -1)], "a": [4, *range(9, -1, -1)]}
    keeper.arrange(["a"])
    assert names(tmp_path) == {f"step{step}" for step in range(10)} | {"latest", "best", "best-a"}
    assert (tmp_path / "best").resolve().name == "step3"
    assert (tmp_path / "best-a").resolve().name == "step4"


def test_the_new_and_the_preferred_are_kept(
    keeping: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    keeper, ranks, saved = keeping(keep=2)
    everything = list(range(9, -1, -1))
    ranks.steps = {None: [3, 5, *(s for s in everything if s not in (3, 5))], "a": [1, *everything]}
    keeper.arrange(["a"])
    # New: 8 and 9; overall: 3 and 5; for a: 1 and 9.
    assert names(tmp_path) == {"step1", "step3", "step5", "step8", "step9", "latest", "best", "best-a"}
    deleted = {record.args[0].name for record in caplog.records if "deleted" in record.message}
    assert deleted == {f"step{step}" for step in (0, 2, 4, 6, 7)}
    # The service knows nothing of deletion: where it prefers one that is gone, the next best counts.
    ranks.steps = {None: [4, 5, 3]}
    assert keeper.best(None, None) == "step5"
    keeper.arrange([])
    assert (tmp_path / "best").resolve().name == "step5"
    assert saved.at(4).deleted


def test_latest_and_what_others_made_are_never_deleted(keeping: Callable[..., Any], tmp_path: Path) -> None:
    keeper, ranks, saved = keeping(keep=1, links=False)
    (tmp_path / "latest").write_text("step2")
    folder(tmp_path, "foreign")
    (tmp_path / "best-of-mine").symlink_to("step4")
    ranks.steps = {None: list(range(9, -1, -1))}
    keeper.arrange([])
    assert names(tmp_path) >= {"step2", "step4", "step9", "foreign", "best-of-mine", "latest"}
    assert "step3" not in names(tmp_path)
    assert not saved.at(2).deleted


def test_without_an_answer_nothing_is_touched(keeping: Callable[..., Any], tmp_path: Path) -> None:
    keeper, ranks, _ = keeping(keep=1)
    before = names(tmp_path)
    ranks.steps = None
    keeper.arrange(["a"])
    assert names(tmp_path) == before
    signal = signal_pb2.Signal(
        best_checkpoint_step=7, groups=[signal_pb2.GroupStatus(group="a", best_checkpoint_step=2)]
    )
    assert keeper.best(None, signal) == "step7"
    assert keeper.best("a", signal) == "step2"
    assert keeper.best("b", signal) is None


def test_a_folder_saved_again_is_the_later_checkpoint_alone(tmp_path: Path) -> None:
    """A rolling folder: deleting the earlier one would delete this one."""
    saved = SavedCheckpoints()
    for step in (100, 200):
        saved.add(step, "rolling", tmp_path / "rolling")
    assert [checkpoint.step for checkpoint in saved if not checkpoint.deleted] == [200]
