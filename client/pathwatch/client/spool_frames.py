"""How messages stand in a spool file: a header, then frames that each carry their own checksums.

Little-endian throughout. The header is `PWSPOOL1`, length and CRC-32 of what follows, and a JSON object that
says whose messages these are. A frame is a fixed head with its own CRC-32, then the payload, whose CRC-32 the
head holds. Checksums of heads start from that of the file's header: a block of another file is not taken
for one of this. A head that does not fit costs the bytes up to the next that does; a payload that does not
fit costs its frame.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pathwatch.client.messages import Kind

_MAGIC = b"PWSPOOL1"
_PREFIX = struct.Struct("<II")
_LONGEST_HEADER = 1 << 16
_MARK = b"\xf5PWf"
_HEAD = struct.Struct("<4sBIqQII")
_SUM = struct.Struct("<I")
_FRAME = _HEAD.size + _SUM.size
_KINDS: tuple[Kind, ...] = ("batch", "watermark", "geometry", "checkpoint")
_SCAN = 1 << 16


class SpoolFormatError(Exception):
    """A file is not a spool file, or its header is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message as it stands in a file."""

    kind: Kind
    step: int
    sequence: int
    samples: int
    payload: bytes
    """Empty when only heads were read."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame any more."""

    samples: int
    """Observations lost, where the head still tells."""


def header_bytes(fields: Mapping[str, Any]) -> bytes:
    """The beginning of a file."""
    text = json.dumps(fields).encode()
    return _MAGIC + _PREFIX.pack(len(text), zlib.crc32(text)) + text


def seed_of(header: bytes) -> int:
    """What the checksums of a file's heads start from."""
    return zlib.crc32(header)


def read_header(file: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """What the header says, the seed of the file's checksums, and where the first frame begins.

    Raises:
        SpoolFormatError: no header, or a damaged one.
    """
    start = file.read(len(_MAGIC) + _PREFIX.size)
    if len(start) < len(_MAGIC) + _PREFIX.size or not start.startswith(_MAGIC):
        raise SpoolFormatError("it does not begin as a spool file does")
    length, checksum = _PREFIX.unpack_from(start, len(_MAGIC))
    text = file.read(min(length, _LONGEST_HEADER))
    if len(text) != length or zlib.crc32(text) != checksum:
        raise SpoolFormatError("its header is damaged")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpoolFormatError("its header is no JSON") from error
    if not isinstance(fields, dict):
        raise SpoolFormatError("its header is no JSON object")
    return fields, seed_of(start + text), len(start) + len(text)


def frame_bytes(frame: Frame, seed: int) -> bytes:
    """A frame as it is written."""
    head = _HEAD.pack(
        _MARK,
        _KINDS.index(frame.kind),
        len(frame.payload),
        frame.step,
        frame.sequence,
        frame.samples,
        zlib.crc32(frame.payload),
    )
    return head + _SUM.pack(zlib.crc32(head, seed)) + frame.payload


def read_frames(
    file: BinaryIO, seed: int, start: int, end: int, *, payloads: bool = True
) -> Iterator[tuple[Frame | Damage, int]]:
    """Frames from `start` on, each with the offset behind it, up to `end`; what is damaged as one `Damage`.

    Without `payloads` only heads are read, and of damage only what can be seen there is noticed.
    """
    position = start
    while position < end:
        file.seek(position)
        head = _head(file.read(_FRAME), seed)
        if head is None:
            position = _next_head(file, seed, position + 1, end)
            yield Damage(0), position
            continue
        kind, length, step, sequence, samples, checksum = head
        position += _FRAME + length
        if position > end:
            yield Damage(samples), end
            return
        payload = file.read(length) if payloads else b""
        if payloads and (len(payload) < length or zlib.crc32(payload) != checksum):
            yield Damage(samples), position
        else:
            frame = Frame(kind=kind, step=step, sequence=sequence, samples=samples, payload=payload)
            yield frame, position


def _head(data: bytes, seed: int) -> tuple[Kind, int, int, int, int, int] | None:
    if len(data) < _FRAME or not data.startswith(_MARK):
        return None
    if _SUM.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size], seed):
        return None
    _, kind, length, step, sequence, samples, checksum = _HEAD.unpack_from(data)
    return (_KINDS[kind], length, step, sequence, samples, checksum) if kind < len(_KINDS) else None


def _next_head(file: BinaryIO, seed: int, start: int, end: int) -> int:
    """Where the next head begins that fits, or `end`."""
    position = start
    while position < end:
        file.seek(position)
        data = file.read(min(_SCAN + _FRAME, end - position))
        found = data.find(_MARK)
        while found >= 0:
            if _head(data[found : found + _FRAME], seed) is not None:
                return position + found
            found = data.find(_MARK, found + 1)
        position += _SCAN
    return end
