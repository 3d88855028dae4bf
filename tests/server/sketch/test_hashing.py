"""The sample hash is part of the contract with clients: frozen, reproducible in plain integers, uniform."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pathwatch.server.sketch.hashing import sample_hash

MASK = 2**64 - 1
FROZEN = ["3a0584dad8971692", "e4fbf24dd5b2cd6a", "bd43088c36eb925e", "1483e91d7b4676fd"]
INT64 = st.integers(-(2**63), 2**63 - 1)


def hash_in_plain_integers(run: str, group: str, sample_id: int) -> int:
    key = int.from_bytes(
        hashlib.blake2b(run.encode() + b"\0" + group.encode(), digest_size=8).digest(), "little"
    )
    z = (key + (sample_id + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@given(run=st.text(max_size=8), group=st.text(max_size=8), sample_ids=st.lists(INT64, max_size=5))
def test_equals_the_documented_formula(run: str, group: str, sample_ids: list[int]) -> None:
    hashes = sample_hash(run, group, np.array(sample_ids, np.int64))
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [hash_in_plain_integers(run, group, sample_id) for sample_id in sample_ids]


def test_never_changes() -> None:
    hashes = sample_hash("olmoe-1b", "math", np.array([0, 1, -1, 2**62], np.int64))
    assert [f"{value:016x}" for value in hashes.tolist()] == FROZEN


@pytest.mark.parametrize("group", ["math", "code"])
@pytest.mark.parametrize("stride", [1, 512, 2**40])
def test_is_uniform_over_regular_ids(group: str, stride: int) -> None:
    hashes = sample_hash("run", group, np.arange(20_000) * stride)
    for bits in (hashes >> np.uint64(56), hashes & np.uint64(255)):
        counts = np.bincount(bits.astype(np.int64), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(hashes / 2.0**64, "uniform").pvalue > 1e-4


def test_groups_and_runs_select_independently() -> None:
    ids = np.arange(20_000)
    columns = [sample_hash(run, group, ids) / 2.0**64 for run, group in [("a", "b"), ("a", "c"), ("ab", "")]]
    correlations = np.corrcoef(columns)[np.triu_indices(3, 1)]
    assert (np.abs(correlations) < 0.03).all()


def test_one_bit_of_the_id_flips_half_of_the_hash() -> None:
    ids = np.arange(2_000)
    for bit in range(0, 63, 7):
        flipped = np.bitwise_count(sample_hash("run", "g", ids) ^ sample_hash("run", "g", ids ^ (1 << bit)))
        assert 31 < flipped.mean() < 33
