"""The open streams of one run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pathwatch.server.engine.outbox import Outbox
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.streams import Ack, RankStream


class StreamSet:
    """At most one stream per rank, and which of them an answer is owed to."""

    def __init__(self) -> None:
        self._by_rank: dict[int, RankStream] = {}
        self._owing: dict[int, RankStream] = {}  # by identity, in order

    def __len__(self) -> int:
        return len(self._by_rank)

    def add(self, stream: RankStream) -> None:
        """A rank has opened a stream; an older one of the same rank is ended."""
        if older := self._by_rank.get(stream.rank):
            older.end(
                RefusedError(Code.FAILED_PRECONDITION, f"another stream of rank {stream.rank} took over")
            )
        self._by_rank[stream.rank] = stream
        self.owe(stream)

    def remove(self, stream: RankStream) -> None:
        """A stream is gone."""
        stream.ended = True
        if self._by_rank.get(stream.rank) is stream:
            del self._by_rank[stream.rank]

    def end_all(self, refusal: RefusedError) -> None:
        """Nothing more is taken from any rank."""
        for stream in self._by_rank.values():
            stream.end(refusal)
        self._by_rank.clear()

    def owe(self, stream: RankStream) -> None:
        """The stream has something to be acknowledged."""
        self._owing[id(stream)] = stream

    @property
    def owing(self) -> Iterable[RankStream]:
        """Those that an answer is owed to."""
        return self._owing.values()

    def put_acks(self, outbox: Outbox) -> None:
        """Acknowledge everything owed once the commit is through."""
        for stream in self._owing.values():
            outbox.effects.append(partial(_deliver, stream, stream.take_ack()))
        self._owing.clear()


def _deliver(stream: RankStream, ack: Ack) -> None:
    if not stream.ended:
        stream.deliver(ack)
