"""Archives are read as `np.load` reads them, or left to it: damage never becomes another number."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from pathwatch.server.engine.arrays import pack, unpack
from pathwatch.server.engine.stored_npz import read_stored_npz

Arrays = dict[str, NDArray[np.generic]]

ELEMENTS = st.one_of(
    arrays_of.integer_dtypes(), arrays_of.floating_dtypes(endianness="<"), arrays_of.boolean_dtypes()
)
ARRAY = arrays_of.arrays(ELEMENTS, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
NAMED = st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), ARRAY, max_size=5)


def loaded(data: bytes) -> Arrays:
    """What NumPy itself reads."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def assert_same(mine: Arrays, theirs: Arrays) -> None:
    assert list(mine) == list(theirs)
    for name, array in theirs.items():
        assert (mine[name].dtype, mine[name].shape) == (array.dtype, array.shape)
        assert mine[name].tobytes() == array.tobytes()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(NAMED)
def test_what_is_packed_is_read_as_numpy_reads_it(arrays: Arrays) -> None:
    data = pack(arrays)
    read = read_stored_npz(data)
    assert read is not None
    assert_same(read, loaded(data))
    assert_same(unpack(data), loaded(data))


def test_what_is_read_may_be_changed() -> None:
    data = pack({"a": np.arange(3)})
    unpack(data)["a"][0] = 7
    assert unpack(data)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("write", [np.savez_compressed, np.savez])
def test_other_ways_of_writing_are_left_to_numpy(write: object) -> None:
    file = io.BytesIO()
    write(file, a=np.asfortranarray(np.arange(6).reshape(2, 3)), b=np.array(["x", "yz"]))  # type: ignore[operator]
    assert read_stored_npz(file.getvalue()) is None
    assert_same(unpack(file.getvalue()), loaded(file.getvalue()))


def test_no_damaged_byte_becomes_another_number() -> None:
    arrays: Arrays = {"losses": np.array([0.5, np.nan], np.float32), "sample_ids": np.array([3, 2**40])}
    data = pack(arrays)
    left = 0
    for at in range(len(data)):
        for flip in (1, 0x20, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            if (read := read_stored_npz(bytes(damaged))) is not None:
                assert_same(read, arrays)
                left += 1
    assert left < len(data)  # times and versions may say anything


def test_what_is_cut_off_is_no_archive() -> None:
    data = pack({"losses": np.arange(5.0)})
    for size in range(len(data)):
        assert read_stored_npz(data[:size]) is None
    with pytest.raises(Exception, match=r"zip|empty|EOF|pickle"):
        unpack(data[:-1])
