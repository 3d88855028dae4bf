"""Spool files, cut and flipped anywhere: what is read is what was written, in order, never anything else."""

from __future__ import annotations

import io

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pathwatch.client.spool_frames import (
    Damage,
    Frame,
    SpoolFormatError,
    frame_bytes,
    header_bytes,
    read_frames,
    read_header,
)

HEADER = header_bytes({"run": "r", "rank": 3})

frames = st.lists(
    st.builds(
        Frame,
        kind=st.sampled_from(("batch", "watermark", "geometry", "checkpoint")),
        step=st.integers(-(2**63), 2**63 - 1),
        sequence=st.integers(0, 2**64 - 1),
        samples=st.integers(0, 2**32 - 1),
        payload=st.binary(max_size=300),
    ),
    max_size=12,
)


def written(all_frames: list[Frame]) -> tuple[bytes, list[tuple[int, int]]]:
    """A file, and where each frame begins and ends."""
    data, places = HEADER, []
    _, seed, _ = read_header(io.BytesIO(HEADER))
    for frame in all_frames:
        start = len(data)
        data += frame_bytes(frame, seed)
        places.append((start, len(data)))
    return data, places


def read(data: bytes, *, payloads: bool = True) -> list[Frame | Damage]:
    file = io.BytesIO(data)
    _, seed, start = read_header(file)
    return [item for item, _ in read_frames(file, seed, start, len(data), payloads=payloads)]


@given(frames)
def test_what_is_written_is_read(all_frames: list[Frame]) -> None:
    data, _ = written(all_frames)
    assert read(data) == all_frames
    assert [(f.kind, f.step, f.sequence, f.samples) for f in read(data, payloads=False)] == [
        (f.kind, f.step, f.sequence, f.samples) for f in all_frames
    ]


@given(frames, st.data())
def test_any_number_of_flips_and_a_cut_anywhere_cost_the_frames_they_touch_and_no_other(
    all_frames: list[Frame], data: st.DataObject
) -> None:
    whole, places = written(all_frames)
    body = st.integers(len(HEADER), max(len(HEADER), len(whole) - 1))
    flips = data.draw(st.lists(st.tuples(body, st.integers(1, 255)), max_size=4, unique_by=lambda f: f[0]))
    cut = data.draw(st.integers(len(HEADER), len(whole)))
    damaged = bytearray(whole)
    for place, bits in flips:
        if place < len(damaged):
            damaged[place] ^= bits
    got = read(bytes(damaged[:cut]))
    hurt = [place for place, _ in flips if place < cut]
    untouched = [
        frame
        for frame, (start, end) in zip(all_frames, places, strict=True)
        if end <= cut and not any(start <= place < end for place in hurt)
    ]
    assert [item for item in got if isinstance(item, Frame)] == untouched
    ends = {len(HEADER), *(end for _, end in places)}
    complete = not hurt and cut in ends
    assert any(isinstance(item, Damage) for item in got) == (not complete)


@given(frames, st.data())
def test_reading_may_stop_and_go_on_after_any_frame(all_frames: list[Frame], data: st.DataObject) -> None:
    whole, places = written(all_frames)
    index = data.draw(st.integers(0, len(all_frames)))
    offset = places[index - 1][1] if index else len(HEADER)
    file = io.BytesIO(whole)
    _, seed, _ = read_header(file)
    assert [item for item, _ in read_frames(file, seed, offset, len(whole))] == all_frames[index:]


@given(frames.filter(bool))
def test_frames_of_another_file_are_not_taken_for_ones_of_this(all_frames: list[Frame]) -> None:
    """As when the file system puts a block in the wrong place."""
    other = header_bytes({"run": "r", "rank": 4})
    data, _ = written(all_frames)
    assert all(isinstance(item, Damage) for item in read(other + data[len(HEADER) :]))


@given(st.integers(0, len(HEADER) - 1), st.integers(1, 255))
def test_a_damaged_header_is_noticed(place: int, bits: int) -> None:
    data = bytearray(HEADER)
    data[place] ^= bits
    with pytest.raises(SpoolFormatError):
        read_header(io.BytesIO(data))


@given(st.integers(0, len(HEADER) - 1))
def test_a_torn_header_is_noticed(length: int) -> None:
    with pytest.raises(SpoolFormatError):
        read_header(io.BytesIO(HEADER[:length]))
