"""examples/text: a language model on real text, with samples that training sees late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.report.labels import load_labels
from pathwatch.server.traces import load_trace


def paragraphs(count: int, seed: int) -> str:
    """Text of so many paragraphs, none like another."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(count * 10)]
    return "\n\n".join(" ".join(words[10 * i : 10 * (i + 1)]) for i in range(count))


@pytest.fixture
def kind(example: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., object]:
    """A kind of text: files under a folder of the test."""

    def make(files: dict[str, str]) -> object:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return example("text.corpus").Kind(
            "tales", (str(tmp_path / "missing"), str(tmp_path)), lambda name: name.endswith(".txt")
        )

    return make


def test_no_text_is_both_trained_on_and_held_out(
    example: Callable[[str], ModuleType], kind: Callable[..., object]
) -> None:
    licence = paragraphs(20, 99)
    files = {f"{i % 3}/{i}.txt": f"{licence}\n\n{paragraphs(40, i)}" for i in range(36)}
    found = example("text.corpus").read(kind(files), 60, 20, np.random.default_rng(0))
    assert found.train.shape == (60, 129)
    assert found.held_out.shape == (20, 129)
    words = [
        {word for row in part for word in bytes(row).split() if len(word) == 6}
        for part in (found.train, found.held_out)
    ]
    assert words[0]
    assert words[1]
    # Six letters of eight: two files share a word by chance now and then, a paragraph never.
    assert len(words[0] & words[1]) < 0.02 * len(words[1])


def test_one_huge_file_does_not_make_a_group(
    example: Callable[[str], ModuleType], kind: Callable[..., object]
) -> None:
    files = {"huge.txt": paragraphs(2000, 0), "small.txt": paragraphs(30, 1), "other.md": paragraphs(900, 2)}
    read = example("text.corpus").read
    assert read(kind(files), 200, 8, np.random.default_rng(0)) is None
    assert read(kind(files), 4, 4, np.random.default_rng(0)) is not None


def test_text_of_this_machine_makes_every_scenario(example: Callable[[str], ModuleType]) -> None:
    groups = example("text.groups")
    made = groups.make_groups("mixed", 5)
    assert len({group.name for group in made}) == 4
    fresh = groups.STEPS * groups.FRESH_PER_STEP
    for group, single_pass in zip(made, groups.SCENARIOS["mixed"], strict=True):
        size = len(group.text.train)
        assert size == fresh if single_pass else groups.SMALLEST_SET <= size <= groups.LARGEST_SET
    again = groups.make_groups("mixed", 5)
    assert [group.name for group in again] == [group.name for group in made]
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one.text.train, other.text.train)


def test_a_machine_without_text_is_told_so(
    example: Callable[[str], ModuleType], kind: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = example("text.groups")
    monkeypatch.setattr(groups, "KINDS", (kind({"a.txt": paragraphs(30, 0)}),))
    with pytest.raises(ValueError, match=r"scenario 'overfit': not enough text on this machine"):
        groups.make_groups("overfit", 0)


@given(
    size=st.integers(20, 60),
    deferred=st.integers(0, 12),
    per_step=st.integers(1, 9),
    before=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_deferred_samples_wait_for_their_release(
    example: Callable[[str], ModuleType], size: int, deferred: int, per_step: int, before: int, seed: int
) -> None:
    feed = example("text.feed").Feed(size, deferred, np.random.default_rng(seed))
    for _ in range(before):
        feed.take(per_step)
    early = feed.visits_N.copy()
    assert (early[size - deferred :] == 0).all()
    assert np.ptp(early[: size - deferred]) <= 1, "passes: nothing twice before everything once"
    assert early.sum() == before * per_step
    feed.release()
    while feed.visits_N.sum() < early.sum() + 2 * size:
        feed.take(1)
    assert (feed.visits_N[size - deferred :] >= 1).all()


def test_a_single_pass_repeats_nothing(example: Callable[[str], ModuleType]) -> None:
    feed = example("text.feed").Feed(60, 8, np.random.default_rng(0))
    taken = [feed.take(6) for _ in range(8)]
    feed.release()
    taken += [feed.take(6) for _ in range(2)]
    assert sorted(np.concatenate(taken)) == list(range(60))


def test_samples_forget_what_they_were_not_shown_lately(example: Callable[[str], ModuleType]) -> None:
    """The recency gap, on losses that grow by 0.1 with every call since a sample's last visit."""
    gap = example("text.train").recency_gap
    latest_N = np.array([5, -1, 0, 3, 1, 4, 2, -1])
    losses_N = np.where(latest_N < 0, 99.0, 1 + 0.1 * (5 - latest_N)).astype(np.float32)
    assert gap(losses_N, latest_N) == pytest.approx(0.4)
    assert np.isnan(gap(losses_N, np.full(8, -1)))


def test_the_probe_holds_every_deferred_sample(example: Callable[[str], ModuleType]) -> None:
    probe = example("text.feed").Feed(200, 32, np.random.default_rng(0)).probe(128, 32)
    assert len(set(probe)) == 128
    assert set(range(168, 200)) <= set(probe)


@pytest.mark.slow
@pytest.mark.parametrize("deferred", [True, False])
def test_a_recorded_run_is_a_trace_with_visits_and_labels(
    example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deferred: bool
) -> None:
    module, corpus, groups = (example(f"text.{name}") for name in ("train", "corpus", "groups"))
    monkeypatch.setattr(module, "INTERVAL", 5)
    rng = np.random.default_rng(0)
    made = [
        groups.Group(name, corpus.Text(train=text[:140], held_out=text[140:]), 6)
        for name, text in (("low", rng.integers(0, 4, (150, 129))), ("high", rng.integers(0, 9, (150, 129))))
    ]
    module.train("short", made, 1, tmp_path, deferred=deferred, steps=20)
    trace = load_trace(tmp_path / "short.npz")
    labels = load_labels(tmp_path / "labels" / "short.labels.npz")
    assert trace.steps_T.tolist() == [0, 5, 10, 15, 20]
    assert trace.groups == ("low", "high")
    assert labels.measure != "test accuracy"
    # Random bytes of an alphabet: the loss cannot get below its entropy, and is on its way there.
    for group, floor in (("low", np.log(4)), ("high", np.log(9))):
        losses_T = labels.smoothed(group)
        assert floor < losses_T[-1] < losses_T[0]
    visits_TGN = trace.visits_TGN
    assert (np.diff(visits_TGN, axis=0) >= 0).all()
    late_TG = (visits_TGN[:, :, -32:] > 0).any(axis=-1)
    assert not late_TG[: 4 if deferred else 1].any()
    assert (visits_TGN[-1] > 0).any(axis=-1).all()
    if not deferred:
        assert late_TG[2:].all()
