"""How much a request holds, counted on its bytes before anything is made of them.

A number of one byte takes eight in memory, an empty message of two bytes some fifty and more: 30 MB of either
become gigabytes. Bytes and text take what they weigh; everything else is counted here and bounded.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_ITEMS = 10_000
"""Fields, messages and packed numbers of one request; the largest of the protocol have some hundreds."""
MAX_DEPTH = 16
"""Messages within messages; the protocol has four."""

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_SIZES = {1: 8, 5: 4}
"""Bytes of a value by wire type, where that is fixed."""


class WireError(Exception):
    """The bytes are no message of the protocol, or hold more than any; one line."""


def check_items(data: bytes, kind: Descriptor) -> None:
    """Raises WireError where a message of this kind holds more than MAX_ITEMS or is nested beyond MAX_DEPTH.

    The time it takes does not depend on the size of the data, only on the number of items.
    """
    left = MAX_ITEMS
    todo: list[tuple[int, int, Descriptor, int]] = [(0, len(data), kind, 1)]
    while todo:
        at, end, kind, depth = todo.pop()
        fields = kind.fields_by_number
        while at < end:
            left -= 1
            tag, at = _varint(data, at, end)
            field, wire = fields.get(tag >> 3), tag & 7
            if wire == 0:
                _, at = _varint(data, at, end)
            elif wire == 2:
                size, at = _varint(data, at, end)
                if at + size > end:
                    raise WireError("is cut off")
                if field is not None and field.message_type is not None:
                    if depth == MAX_DEPTH:
                        raise WireError(f"is nested more than {MAX_DEPTH} deep")
                    todo.append((at, at + size, field.message_type, depth + 1))
                elif field is not None and field.type not in _TEXTS:
                    left -= size  # a number takes at least one byte
                at += size
            elif wire in _SIZES:
                at += _SIZES[wire]
            else:
                raise WireError("is no message of this protocol")
            if at > end:
                raise WireError("is cut off")
            if left < 0:
                raise WireError(f"holds more than {MAX_ITEMS} fields and numbers; send less at once")


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("is cut off" if at == end else "is no message of this protocol")
