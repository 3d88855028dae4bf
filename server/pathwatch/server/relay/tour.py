"""One round of the servers, in search of the one that has a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pathwatch.server.relay.avoidance import Avoidance

_MOST_HOPS = 4


class Tour:
    """Iterates over where to go next: the servers in their order, each once, and where they point to."""

    def __init__(self, addresses: Iterable[str], avoidance: Avoidance) -> None:
        self._todo = list(avoidance.order(dict.fromkeys(addresses)))
        self._avoidance = avoidance
        self._away: set[str] = set()
        self._hops = 0
        self.redirected = False
        """Whether a server said that another one has the run: it is served, or about to be."""

    def __iter__(self) -> Iterator[str]:
        while self._todo:
            yield self._todo.pop(0)

    def away(self, address: str) -> None:
        """A server is not there."""
        self._away.add(address)

    def point(self, owner: str) -> None:
        """A server says that this one has the run; empty = another one, it does not know which."""
        self.redirected = True
        is_away = owner in self._away or self._avoidance.is_unreached(owner)
        if owner and not is_away and self._hops < _MOST_HOPS:
            self._hops += 1
            self._todo.insert(0, owner)
