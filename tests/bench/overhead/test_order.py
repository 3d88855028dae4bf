"""Blocks alternate so that neither place nor neighbour favours anyone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.overhead.order import BASELINE, one_round

names = st.lists(st.sampled_from("abcdefghij"), unique=True, min_size=1)


@given(names, st.integers(0, 9))
def test_every_variant_runs_once_right_beside_the_baseline(variants: list[str], number: int) -> None:
    run = [BASELINE, *one_round(variants, number)]
    assert sorted(name for name in run if name != BASELINE) == sorted(variants)
    for index, name in enumerate(run):
        assert name == BASELINE or BASELINE in (run[index - 1], run[index + 1])
    assert run[-1] == BASELINE


@given(names)
def test_rounds_run_back_and_forth(variants: list[str]) -> None:
    there, back, again = ([n for n in one_round(variants, i) if n != BASELINE] for i in range(3))
    assert back == there[::-1]
    assert again == there
