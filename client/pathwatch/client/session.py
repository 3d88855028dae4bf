"""Who sends, and what."""

from __future__ import annotations

from dataclasses import dataclass

from pathwatch.client.buffer import SendBuffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who sends: fixed for the life of a stream."""

    run: str
    attempt: int
    rank: int
    world_size: int
    session: str


@dataclass(frozen=True, slots=True)
class Session:
    """One life of a sender, and what of it is still to be delivered."""

    identity: Identity
    buffer: SendBuffer
