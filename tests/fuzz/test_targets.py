"""Every decoder of foreign bytes, on valid inputs, on inputs that once broke it, and on mutations of both.

`make fuzz` does the same at length, guided by coverage.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

REGRESSIONS = Path(__file__).parents[1] / "data/fuzz"
SEEDS = seeds()
EDGES = (
    *(b"\x00", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01"),  # varints
    *(bytes(8), b"\xff" * 8),  # integers
    *(b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\x00\x00\xc0\x7f"),  # infinities, NaN
)


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """The seed with bits flipped, pieces cut out, repeated or replaced."""
    place = st.integers(0, len(seed))
    change = st.one_of(
        st.tuples(place, st.integers(0, 2), st.binary(max_size=9)),
        st.tuples(place, st.integers(0, len(seed)), st.just(b"")),
        st.tuples(
            place,
            st.sampled_from([1, 4, 8]),
            st.sampled_from(EDGES),
        ),
    )

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = seed
        for at, length, new in changes:
            data = data[:at] + new + data[at + length :]
        return data

    return st.lists(change, min_size=1, max_size=3).map(apply)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_valid_passes(target: str) -> None:
    for seed in SEEDS[target]:
        TARGETS[target](seed)


@pytest.mark.parametrize(
    "path", sorted(REGRESSIONS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_what_once_broke_a_decoder(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_mutations(target: str) -> None:
    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SEEDS[target]).flatmap(mutated) | st.binary(max_size=200))
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()
