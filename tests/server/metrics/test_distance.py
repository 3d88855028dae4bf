"""Path distance: golden values, textbook Levenshtein over all pairs, its standard error, and sampling."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from pathwatch.server.metrics.distance import cross_path_distance, layer_path_distance, path_distance
from pathwatch.server.metrics.pairs import PairBudget, cross_pairs, within_pairs
from pathwatch.server.metrics.pathways import layer_pathways, literal, pathways, rank_experts

EXACT = PairBudget(max_pairs=10**9)
words = st.lists(st.text("abcd", min_size=1, max_size=8), min_size=2, max_size=9)


def levenshtein(first: str, second: str) -> int:
    """The recurrence as in every textbook, a row at a time."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def golden_pathways(golden, threshold: float = 0.7, name: str = "weights") -> list[str]:
    return pathways(rank_experts(golden.inputs[name]), threshold)


def test_golden(golden):
    expected = golden.expected
    for threshold, value in expected["path_distance"].items():
        assert path_distance(golden_pathways(golden, float(threshold)), EXACT).mean == pytest.approx(value)
    found = golden_pathways(golden)
    experts = golden.inputs["weights"].shape[2]
    assert path_distance(found, EXACT).normalized == pytest.approx(expected["path_distance_normalized"])
    in_characters = [literal(pathway, experts) for pathway in found]
    assert path_distance(in_characters, EXACT).mean == pytest.approx(expected["path_distance_char"])
    layers = layer_path_distance(layer_pathways(found, experts), EXACT)
    np.testing.assert_allclose(layers, expected["layer_path_distance"])
    cross = cross_path_distance(found, golden_pathways(golden, name="other_group_weights"), EXACT)
    assert cross == pytest.approx(expected["cross_path_distance"])


@given(words)
def test_matches_plain_loops_over_all_pairs(sequences):
    pairs = list(itertools.combinations(sequences, 2))

    found = path_distance(sequences, EXACT)

    assert found.exact
    assert found.mean == pytest.approx(statistics.fmean(levenshtein(a, b) for a, b in pairs))
    normalized = [levenshtein(a, b) / max(len(a), len(b)) for a, b in pairs]
    assert found.normalized == pytest.approx(statistics.fmean(normalized))
    assert 0 <= found.normalized <= 1


@given(words, words)
def test_cross_matches_plain_loops(sequences, others):
    expected = statistics.fmean(levenshtein(a, b) for a in sequences for b in others)
    assert cross_path_distance(sequences, others, EXACT) == pytest.approx(expected)
    assert cross_path_distance(others, sequences, EXACT) == pytest.approx(expected)


@given(words)
def test_standard_error_is_what_leaving_out_each_sample_gives(sequences):
    found = path_distance(sequences, EXACT)
    n = len(sequences)
    if n < 3:
        assert found.stderr is None
        return
    without = [
        statistics.fmean(
            levenshtein(a, b) for a, b in itertools.combinations(sequences[:i] + sequences[i + 1 :], 2)
        )
        for i in range(n)
    ]
    centre = statistics.fmean(without)
    jackknife = math.sqrt((n - 1) / n * sum((value - centre) ** 2 for value in without))
    assert found.stderr == pytest.approx(jackknife, abs=1e-12)


@given(words, st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter_to_the_bit(sequences, random):
    shuffled = random.sample(sequences, len(sequences))
    assert path_distance(sequences, EXACT) == path_distance(shuffled, EXACT)
    assert cross_path_distance(sequences, ["ab"], EXACT) == cross_path_distance(shuffled, ["ab"], EXACT)


@given(words, st.integers(2, 4))
def test_repeating_every_sample_only_adds_pairs_of_equals(sequences, times):
    once, repeated = path_distance(sequences, EXACT), path_distance(sequences * times, EXACT)
    n = len(sequences)
    # Of all pairs, this share joins two copies of one sample, at distance 0.
    share = n * math.comb(times, 2) / math.comb(n * times, 2)
    assert repeated.mean == pytest.approx(once.mean * (1 - share))
    assert repeated.pairs == once.pairs


@pytest.mark.parametrize("sequences", [[], ["a"]])
def test_undefined_below_two_samples(sequences):
    assert path_distance(sequences, EXACT) is None
    assert layer_path_distance([sequences, sequences], EXACT) is None


def test_equal_samples_are_at_distance_zero():
    found = path_distance(["abc"] * 600, PairBudget())
    assert (found.mean, found.normalized, found.stderr, found.pairs, found.exact) == (0, 0, 0, 0, True)


@pytest.mark.parametrize("experts", [8, 64, 300])
def test_sampled_agrees_with_exact_within_the_error_of_sampling(make_weights, experts):
    sequences = pathways(rank_experts(make_weights(300, 4, experts, noise=0.7)), 0.7)
    budget = PairBudget(target_stderr=0.004)

    exact, sampled = path_distance(sequences, EXACT), path_distance(sequences, budget)

    assert exact.exact
    assert not sampled.exact
    assert budget.first_pairs <= sampled.pairs <= budget.max_pairs < exact.pairs
    assert abs(sampled.mean - exact.mean) < 3 * budget.target_stderr * exact.mean
    assert abs(sampled.normalized - exact.normalized) < 3 * budget.target_stderr * exact.normalized
    assert abs(sampled.mean - exact.mean) < 3 * sampled.stderr
    assert exact.stderr * 0.7 < sampled.stderr < exact.stderr * 2


def test_sampled_cross_agrees_with_exact_within_the_error_of_sampling(make_weights):
    sequences = pathways(rank_experts(make_weights(300, 4, 16, seed=1)), 0.7)
    others = pathways(rank_experts(make_weights(170, 4, 16, seed=2)), 0.7)
    exact = cross_path_distance(sequences, others, EXACT)
    for first, second in ((sequences, others), (others, sequences)):
        sampled = cross_path_distance(first, second, PairBudget())
        assert sampled != exact
        assert abs(sampled - exact) < 3 * 0.005 * exact


def test_sampling_repeats_to_the_bit(make_weights):
    weights = make_weights(300, 4, 16)
    first, second = (path_distance(pathways(rank_experts(weights), 0.7), PairBudget()) for _ in range(2))
    assert first == second


def test_a_tighter_wish_takes_more_pairs_up_to_the_limit(make_weights):
    sequences = pathways(rank_experts(make_weights(300, 4, 16)), 0.7)
    taken = [
        path_distance(sequences, PairBudget(target_stderr=wish, min_pairs=300, max_pairs=5000)).pairs
        for wish in (0.02, 0.004, 1e-6)
    ]
    assert taken[0] < taken[1] < taken[2] == 5000


def test_standard_error_predicts_the_spread_over_draws(make_weights):
    """Draw many windows from one population: their means lie as far apart as each one predicts."""
    population = pathways(rank_experts(make_weights(2000, 3, 8, noise=1.5)), 0.7)
    generator = np.random.default_rng(0)
    for budget in (EXACT, PairBudget(min_pairs=120, max_pairs=240, target_stderr=0.5)):
        draws = [
            path_distance([population[i] for i in generator.choice(2000, 60, replace=False)], budget)
            for _ in range(200)
        ]
        spread = statistics.stdev(draw.mean for draw in draws)
        predicted = statistics.fmean(draw.stderr for draw in draws)
        # At most √2 too large where the error is all of sampling; the spread of 200 draws is known to 5 %.
        assert 0.85 < predicted / spread < 1.6


@given(st.integers(3, 40))
def test_within_pairs_are_balanced_and_never_repeat(n):
    found = list(zip(*within_pairs(n, n * n), strict=True))
    for start in range(0, len(found), n):
        taking_part = [i for pair in found[start : start + n] for i in pair]
        assert sorted(taking_part) == sorted(2 * list(range(n)))
    pairs = [frozenset(pair) for pair in found]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)
    assert len(set().union(*pairs[: n // 2])) == 2 * (n // 2)
    # All pairs for odd n; for even n all but those half-way round.
    assert len(pairs) == math.comb(n, 2) - (n // 2 if n % 2 == 0 else 0)


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30))
def test_cross_pairs_are_all_pairs_once(n, m):
    pairs = list(zip(*cross_pairs(n, m, n * m), strict=True))
    assert sorted(pairs) == list(itertools.product(range(n), range(m)))


@settings(max_examples=30)
@given(st.integers(3, 30), st.integers(1, 30), st.integers(1, 100))
def test_fewer_pairs_are_the_first_of_more(n, m, most):
    for some, more in (
        (within_pairs(n, most), within_pairs(n, 1000)),
        (cross_pairs(n, m, most), cross_pairs(n, m, 1000)),
    ):
        assert len(some[0]) == min(most, len(more[0]))
        np.testing.assert_array_equal(some, [side[:most] for side in more])


def test_of_long_pathways_fewer_pairs_say_as_much(make_weights):
    taken = {}
    for layers in (2, 120):
        sequences = pathways(rank_experts(make_weights(140, layers, 16)), 0.7)
        exact, sampled = path_distance(sequences, EXACT), path_distance(sequences, PairBudget())
        assert abs(sampled.mean - exact.mean) < 3 * 0.005 * exact.mean
        taken[layers] = sampled.pairs
    assert PairBudget().first_pairs <= taken[120] < taken[2] / 2


def test_pairs_known_to_differ_little_need_few_and_else_no_fewer_are_compared(make_weights):
    budget = PairBudget(min_pairs=0, target_stderr=0.01)
    alike, apart = (pathways(rank_experts(make_weights(160, layers, 16)), 0.6) for layers in (60, 2))

    known = path_distance(alike, PairBudget())
    pairs = zip(*within_pairs(160, known.pairs), strict=True)
    distances = [Levenshtein.distance(alike[i], alike[j]) for i, j in pairs]
    assert known.spread == pytest.approx(np.std(distances) / known.mean)
    few = path_distance(alike, budget.after(known.spread))
    assert few.pairs < budget.first_pairs / 2
    assert few.mean == pytest.approx(path_distance(alike, EXACT).mean, rel=3 * 0.01)
    assert path_distance(alike, EXACT).spread is None

    far = path_distance(apart, budget)
    assert far.pairs > budget.first_pairs
    assert path_distance(apart, budget.after(far.spread)) == far


@pytest.mark.slow
def test_a_few_samples_unlike_all_others_are_within_the_published_error():
    """Of 512 long pathways, all about as far from each other, ten are a third longer.

    Where only few samples are in the pairs compared, none of the ten may be: all seems sure, and is not.
    """
    n, unlike = 512, 10
    far_off = 0
    for seed in range(50):
        generator = np.random.default_rng(seed)
        lengths_N = generator.permutation([400] * unlike + [300] * (n - unlike))
        sequences = ["".join(map(chr, generator.integers(200, 2000, length))) for length in lengths_N]
        like, other = (
            statistics.fmean(
                Levenshtein.distance(sequences[a], sequences[b])
                for a, b in zip(
                    np.flatnonzero(lengths_N == 300), np.flatnonzero(lengths_N == length)[::-1], strict=False
                )
            )
            for length in (300, 400)
        )
        share = 2 * unlike * (n - unlike) / (n * (n - 1))

        found = path_distance(sequences, PairBudget())

        far_off += abs(found.mean - (like + share * (other - like))) > 4 * found.stderr
    assert far_off <= 5


def test_a_sample_of_pairs_is_what_plain_loops_over_it_give(make_weights):
    """Most samples have equals, which are compared once."""
    some = pathways(rank_experts(make_weights(200, 2, 8)), 0.7)
    generator = np.random.default_rng(0)
    sequences = [some[i] for i in np.minimum(generator.geometric(0.01, 600) - 1, 199)]
    others = sequences[:400]
    budget = PairBudget(target_stderr=1e-9, max_pairs=3000)

    found = path_distance(sequences, budget)
    cross = cross_path_distance(sequences, others, budget)

    assert not found.exact
    distances = [
        levenshtein(sequences[i], sequences[j]) for i, j in zip(*within_pairs(600, 3000), strict=True)
    ]
    assert found.mean == pytest.approx(statistics.fmean(distances))
    distances = [
        levenshtein(sequences[i], others[j]) for i, j in zip(*cross_pairs(600, 400, 3000), strict=True)
    ]
    assert cross == pytest.approx(statistics.fmean(distances))
