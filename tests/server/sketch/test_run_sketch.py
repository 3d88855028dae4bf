"""When windows close, what is late, what is advised, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.run_sketch import AddResult, RunSketch, SketchError

Make = Callable[..., Any]


@pytest.fixture
def probe(make_settings: Make) -> RunSketch:
    """Two ranks, one window per step, 60 s of grace."""
    sketch = RunSketch(make_settings())
    sketch.join(0, 2)
    sketch.join(1, 2)
    return sketch


def steps(rounds: list[Any]) -> list[int]:
    return [one.step for one in rounds]


def test_a_round_closes_when_every_rank_has_passed_it(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, [1, 2], group="math"), now=0.0)
    probe.add(make_block(10, [1], group="code"), now=0.0)
    probe.watermark(0, 10, now=0.0)
    assert probe.close_ready(now=59.0) == []
    assert probe.closed_step == -1
    probe.watermark(1, 12, now=59.0)
    [one] = probe.close_ready(now=59.0)
    assert (one.attempt, one.first_step, one.step, one.partial, one.missing_ranks) == (0, 10, 10, False, ())
    assert list(one.windows) == ["code", "math"]
    assert one.windows["math"].sample_ids_N.tolist() == [1, 2]
    assert not one.windows["math"].partial
    assert probe.closed_step == 10
    assert probe.close_ready(now=1e9) == []


def test_grace_counts_from_the_first_rank_that_passed(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, [1]), now=0.0)
    assert probe.next_deadline() is None
    probe.watermark(1, 9, now=1.0)
    assert probe.next_deadline() is None
    probe.watermark(1, 10, now=2.0)
    probe.watermark(1, 11, now=50.0)
    assert probe.next_deadline() == 62.0
    assert probe.close_ready(now=61.9) == []
    [one] = probe.close_ready(now=62.0)
    assert one.partial
    assert one.missing_ranks == (0,)
    assert one.windows["math"].partial
    assert probe.next_deadline() is None


def test_a_rank_that_is_behind_gets_its_grace_from_its_first_data_on(
    probe: RunSketch, make_block: Make
) -> None:
    """A rank that took the lead without data must not make a slower rank's windows close at once."""
    probe.watermark(0, 100, now=0.0)
    probe.add(make_block(50, [1]), now=300.0)
    assert probe.next_deadline() == 360.0
    assert probe.close_ready(now=301.0) == []
    probe.watermark(1, 50, now=301.0)
    assert [one.partial for one in probe.close_ready(now=301.0)] == [False]


def test_a_rank_that_never_joined_is_missing(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings())
    sketch.join(0, 4)
    sketch.join(2, 4)
    sketch.add(make_block(3, [1]), now=0.0)
    sketch.watermark(0, 3, now=0.0)
    sketch.watermark(2, 5, now=0.0)
    [one] = sketch.close_ready(now=60.0)
    assert one.missing_ranks == (1, 3)


def test_nothing_closes_before_a_rank_has_joined(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings())
    sketch.add(make_block(0, [1]), now=0.0)
    assert sketch.close_ready(now=1e9) == []


def test_rounds_come_in_step_order_whatever_came_first(probe: RunSketch, make_block: Make) -> None:
    for step in (30, 10, 20, 40):
        probe.add(make_block(step, [1]), now=0.0)
    probe.watermark(0, 35, now=0.0)
    probe.watermark(1, 35, now=0.0)
    assert steps(probe.close_ready(now=0.0)) == [10, 20, 30]
    assert steps(probe.close_all(now=0.0)) == [40]


def test_an_early_window_in_grace_holds_later_ones_back(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(20, [1]), now=0.0)
    probe.watermark(0, 20, now=0.0)
    probe.add(make_block(10, [1]), now=30.0)
    assert probe.next_deadline() == 90.0
    assert probe.close_ready(now=60.0) == []
    assert steps(probe.close_ready(now=90.0)) == [10, 20]


def test_what_comes_after_its_window_closed_is_late(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, [1]), now=0.0)
    probe.watermark(0, 10, now=0.0)
    probe.watermark(1, 10, now=0.0)
    probe.close_ready(now=0.0)
    assert probe.add(make_block(10, [1, 2]), now=0.0) == AddResult(accepted=0, late=2, beyond=0)
    assert probe.add(make_block(5, [1]), now=0.0) == AddResult(accepted=0, late=1, beyond=0)
    assert probe.close_all(now=0.0) == []


def test_watermarks_never_go_back(probe: RunSketch, make_block: Make) -> None:
    probe.watermark(0, 10, now=0.0)
    probe.watermark(0, 3, now=0.0)
    probe.watermark(1, 10, now=0.0)
    probe.add(make_block(10, [1]), now=0.0)
    assert steps(probe.close_ready(now=0.0)) == [10]


def test_no_observations_no_round(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, []), now=0.0)
    probe.watermark(0, 99, now=0.0)
    probe.watermark(1, 99, now=0.0)
    assert probe.close_all(now=0.0) == []
    assert probe.closed_step == -1


def test_stream_windows_cover_their_steps(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings(mode="stream", window_steps=10))
    sketch.join(0, 1)
    for step, sample_ids in [(9, [1]), (10, [2]), (19, [3, 2]), (20, [4])]:
        sketch.add(make_block(step, sample_ids), now=0.0)
    sketch.watermark(0, 18, now=0.0)
    [first] = sketch.close_ready(now=0.0)
    sketch.watermark(0, 29, now=0.0)
    second, third = sketch.close_ready(now=0.0)
    assert [(one.first_step, one.step) for one in (first, second, third)] == [(0, 9), (10, 19), (20, 29)]
    window = second.windows["math"]
    assert window.sample_ids_N.tolist() == [2, 3]
    newest = make_block(19, [2, 3])
    assert np.array_equal(window.weights_NLK, newest.weights_NLK)
    assert np.array_equal(window.losses_N, newest.losses_N)


def test_the_smallest_hashes_are_kept(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings(capacity=100))
    sketch.join(0, 1)
    ids = np.random.default_rng(0).permutation(1000)
    results = [sketch.add(make_block(0, block), now=0.0) for block in np.array_split(ids, 13)]
    assert all(
        result.accepted + result.beyond == n for result, n in zip(results, [77] * 12 + [76], strict=True)
    )
    [one] = sketch.close_all(now=0.0)
    hashes = sample_hash("run", "math", np.arange(1000))
    assert one.windows["math"].sample_ids_N.tolist() == sorted(np.argsort(hashes)[:100].tolist())


def test_advice_is_for_the_newest_window_once_it_is_full(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings(capacity=3))
    sketch.join(0, 1)
    assert sketch.advice("math") is None
    sketch.add(make_block(1, [1, 2]), now=0.0)
    assert sketch.advice("math") is None
    sketch.add(make_block(1, [3, 4]), now=0.0)
    hashes = sorted(sample_hash("run", "math", np.arange(1, 5)).tolist())
    advice = sketch.advice("math")
    assert advice is not None
    until_step, limit = advice
    assert until_step == 1
    assert hashes[2] < limit <= hashes[3]
    assert sketch.advice("code") is None
    sketch.add(make_block(2, [1]), now=0.0)
    assert sketch.advice("math") is None


def test_finishing_a_run_closes_a_window_it_did_not_fill(make_settings: Make, make_block: Make) -> None:
    sketch = RunSketch(make_settings(mode="stream", window_steps=100))
    sketch.join(0, 2)
    sketch.add(make_block(130, [1]), now=0.0)
    sketch.watermark(0, 140, now=0.0)
    sketch.watermark(1, 140, now=0.0)
    [one] = sketch.close_all(now=0.0)
    assert (one.first_step, one.step, one.partial, one.missing_ranks) == (100, 199, False, ())


def test_finishing_a_run_names_ranks_that_had_more_to_send(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, [1]), now=0.0)
    probe.add(make_block(20, [1]), now=0.0)
    probe.watermark(0, 20, now=0.0)
    probe.watermark(1, 15, now=0.0)
    assert [(one.step, one.missing_ranks) for one in probe.close_all(now=0.0)] == [(10, ()), (20, (1,))]


def test_an_attempt_may_turn_out_to_begin_earlier(make_settings: Make, make_block: Make) -> None:
    rewound = RunSketch(make_settings(), attempt=1, closed_step=29)
    rewound.join(0, 2)
    rewound.join(1, 2)
    rewound.add(make_block(30, [1], attempt=1), now=0.0)
    assert rewound.add(make_block(20, [5], attempt=1), now=0.0).late == 1
    rewound.reopen(20)
    assert rewound.add(make_block(20, [5], attempt=1), now=0.0).accepted == 1
    rewound.watermark(0, 30, now=0.0)
    rewound.watermark(1, 30, now=0.0)
    assert steps(rewound.close_ready(now=0.0)) == [20, 30]
    with pytest.raises(ValueError, match="step 30 is closed"):
        rewound.reopen(30)


def test_a_restarted_service_goes_on_where_it_was(make_settings: Make, make_block: Make, bits: Make) -> None:
    def drive(sketch: RunSketch) -> list[Any]:
        sketch.join(0, 1)
        sketch.add(make_block(20, [1, 2], attempt=3), now=0.0)
        sketch.watermark(0, 20, now=0.0)
        return sketch.close_ready(now=0.0)

    undisturbed = RunSketch(make_settings(), attempt=3)
    undisturbed.join(0, 1)
    undisturbed.add(make_block(10, [1], attempt=3), now=0.0)
    undisturbed.watermark(0, 10, now=0.0)
    undisturbed.close_ready(now=0.0)
    restarted = RunSketch(make_settings(), attempt=3, closed_step=10)
    assert restarted.add(make_block(10, [1], attempt=3), now=0.0).late == 1
    assert bits(drive(restarted)) == bits(drive(undisturbed))


def test_incomplete_samples_are_left_out_and_the_window_is_marked(probe: RunSketch, make_block: Make) -> None:
    probe.add(make_block(10, [1, 2], layers=[0, 1]), now=0.0)
    probe.add(make_block(10, [2], layers=[2]), now=0.0)
    probe.watermark(0, 10, now=0.0)
    probe.watermark(1, 10, now=0.0)
    [one] = probe.close_ready(now=0.0)
    assert one.partial
    assert one.missing_ranks == ()
    assert one.windows["math"].partial
    assert one.windows["math"].sample_ids_N.tolist() == [2]


def test_a_group_without_a_complete_sample_is_missing_from_the_round(
    probe: RunSketch, make_block: Make
) -> None:
    probe.add(make_block(10, [1], token_part=0, token_parts=2), now=0.0)
    probe.add(make_block(10, [1], group="code"), now=0.0)
    probe.watermark(0, 10, now=0.0)
    probe.watermark(1, 10, now=0.0)
    [one] = probe.close_ready(now=0.0)
    assert one.partial
    assert list(one.windows) == ["code"]
    assert not one.windows["code"].partial


def test_parts_are_weighed_by_their_tokens_and_losses_by_target_tokens(
    probe: RunSketch, make_block: Make
) -> None:
    def weights(value: float) -> Any:
        return np.full((1, 3, 4), value, np.float32)

    probe.add(
        make_block(
            0,
            [1],
            token_part=1,
            token_parts=2,
            tokens_N=np.array([3]),
            target_tokens_N=np.array([1]),
            losses_N=np.array([8.0]),
            weights_NLK=weights(1.0),
            target_weights_NLK=weights(0.5),
        ),
        now=0.0,
    )
    probe.add(
        make_block(
            0,
            [1],
            token_part=0,
            token_parts=2,
            tokens_N=np.array([1]),
            target_tokens_N=np.array([1]),
            losses_N=np.array([2.0]),
            weights_NLK=weights(0.2),
        ),
        now=0.0,
    )
    window = probe.close_all(now=0.0)[0].windows["math"]
    assert window.tokens_N.tolist() == [4]
    assert window.losses_N.tolist() == [5.0]
    assert np.allclose(window.weights_NLK, 0.8)
    assert window.target_weights_NLK is not None
    assert np.allclose(window.target_weights_NLK, 0.35)


REFUSED: list[tuple[str, dict[str, Any], str, int | None]] = [
    (
        "layer outside",
        {"layers": [1, 3]},
        "fragment.layers",
        None,
    ),
    ("layers unsorted", {"layers": [1, 0]}, "fragment.layers", None),
    ("layers repeated", {"layers": [1, 1]}, "fragment.layers", None),
    ("neither layers nor losses", {"layers": [], "losses_N": None}, "fragment.layers", None),
    ("part outside", {"token_part": 2, "token_parts": 2}, "fragment.token_part", None),
    ("no parts", {"token_parts": 0}, "fragment.token_parts", None),
    ("too many parts", {"token_parts": 10**9}, "fragment.token_parts", None),
    ("other number of experts", {"weights_NLK": np.zeros((2, 3, 5), np.float32)}, "weights", None),
    ("weights for fewer samples", {"weights_NLK": np.zeros((1, 3, 4), np.float32)}, "weights", None),
    ("target shape", {"target_weights_NLK": np.zeros((2, 1, 4), np.float32)}, "target_weights", None),
    ("split another way", {"token_part": 0, "token_parts": 3}, "fragment.token_parts", 2),
    ("other token count", {"layers": [2], "token_parts": 2, "tokens_N": np.array([7, 8])}, "token_counts", 2),
    (
        "other target token count",
        {"layers": [2], "token_parts": 2, "target_tokens_N": np.array([7, 6])},
        "target_token_counts",
        2,
    ),
    (
        "target weights in some fragments",
        {"token_part": 1, "token_parts": 2, "target_tokens_N": np.array([7, 6])},
        "target_weights",
        2,
    ),
]


@pytest.mark.parametrize(
    ("changes", "field", "sample_id"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_refused_block_leaves_nothing_behind(
    probe: RunSketch,
    make_settings: Make,
    make_block: Make,
    bits: Make,
    changes: dict[str, Any],
    field: str,
    sample_id: int | None,
) -> None:
    """Sample 2 is half there: layers 0 and 1 of its first token part, with target weights."""
    half = make_block(10, [2], layers=[0, 1], token_parts=2)
    first = make_block(10, [2], layers=[0, 1], token_parts=2, target_weights_NLK=half.weights_NLK[:, :, ::-1])
    rest = [
        make_block(10, [2], layers=[2], token_parts=2),
        make_block(10, [2], token_part=1, token_parts=2),
        make_block(10, [3]),
    ]
    undisturbed = RunSketch(make_settings())
    for block in (first, *rest):
        undisturbed.add(block, now=0.0)

    probe.add(first, now=0.0)
    with pytest.raises(SketchError) as refusal:
        probe.add(make_block(10, [9, 2], **changes), now=0.0)
    assert refusal.value.field == f"batch.{field}"
    assert refusal.value.sample_id == sample_id
    for block in rest:
        probe.add(block, now=0.0)
    undisturbed.join(0, 1)
    probe.join(0, 1)
    assert bits(probe.close_all(now=0.0)) == bits(undisturbed.close_all(now=0.0))


def test_a_fragment_may_not_repeat_a_sample(probe: RunSketch, make_block: Make) -> None:
    with pytest.raises(SketchError, match="twice") as refusal:
        probe.add(make_block(10, [1, 4, 4], layers=[0]), now=0.0)
    assert refusal.value.sample_id == 4


def test_another_attempt_is_refused(probe: RunSketch, make_block: Make) -> None:
    with pytest.raises(SketchError, match="attempt 1 is not current"):
        probe.add(make_block(10, [1], attempt=1), now=0.0)


def test_unknown_ranks_are_refused(probe: RunSketch) -> None:
    with pytest.raises(SketchError, match=r"outside 0 … 1"):
        probe.join(2, 2)
    with pytest.raises(SketchError, match="has not joined"):
        probe.watermark(2, 10, now=0.0)


def test_a_sample_pushed_out_by_its_own_block_leaves_no_trace(make_settings: Make, make_block: Make) -> None:
    by_hash = np.argsort(sample_hash("run", "math", np.arange(6))).tolist()
    first, second, last = by_hash[0], by_hash[1], by_hash[5]
    sketch = RunSketch(make_settings(capacity=2))
    assert sketch.add(make_block(0, [last]), now=0.0).accepted == 1
    result = sketch.add(make_block(0, [first, second, last]), now=0.0)
    assert result == AddResult(accepted=2, late=0, beyond=1)
    window = sketch.close_all(now=0.0)[0].windows["math"]
    expected = make_block(0, sorted([first, second]))
    assert window.sample_ids_N.tolist() == expected.sample_ids_N.tolist()
    assert np.array_equal(window.weights_NLK, expected.weights_NLK)
    assert np.array_equal(window.losses_N, expected.losses_N)


@pytest.mark.parametrize("losses", [(0.25, 0.5), (0.5, 0.25), (-0.0, 0.0), (0.0, -0.0)])
def test_of_conflicting_losses_the_smaller_stands(
    probe: RunSketch, make_block: Make, losses: tuple[float, float]
) -> None:
    for loss in losses:
        probe.add(make_block(0, [1], losses_N=np.array([loss])), now=0.0)
    window = probe.close_all(now=0.0)[0].windows["math"]
    assert window.losses_N.tobytes() == np.array([min(losses) + 0.0]).tobytes()


def test_growth_is_never_less_than_what_comes(make_settings: Make, make_block: Make) -> None:
    rng = np.random.default_rng(5)
    sketch = RunSketch(make_settings(mode="stream", window_steps=10, capacity=200))
    sketch.join(0, 1)
    grew = 0
    for number in range(300):
        ids = rng.choice(500, 1 if number % 3 else rng.integers(1, 60), replace=False)
        part = {"token_part": int(rng.integers(2)), "token_parts": 2} if number > 200 else {}
        block = make_block(int(rng.integers(10)), ids.tolist(), group="ab"[number % 2], **part)
        if number % 50 == 49 and not part:
            block = replace(block, target_weights_NLK=block.weights_NLK)
        before, promised = sketch.nbytes, sketch.growth(block)

        try:
            sketch.add(block, 0.0)
        except SketchError:
            continue  # parts of a sample that came whole in the same step

        assert sketch.nbytes - before <= promised
        grew += sketch.nbytes > before
    assert grew > 5
    assert sketch.growth(make_block(9, [1], group="a")) == 0
