"""Which of several servers the next attempt goes to, by what became of those before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from pathwatch.client.endpoints import Endpoints

_MOST_HOPS = 4
_CONNECT_SECONDS = 5.0
_LEAST_AVOIDED = 1.0
_LONGEST_AVOIDED = 5.0
# The server has the run and has looked: no other would say anything else, or be asked in vain meanwhile.
_STAYS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


class Target(NamedTuple):
    """Where to connect."""

    address: str
    authority: str | None = None
    """As for `open_channel`."""
    connect_seconds: float | None = None
    """Likewise; None = there is no other server to go to."""


class Route:
    """Goes where a run was served last, else through the servers in their order, and where they point to.

    Each attempt is `next()`, then `served()`, `lost()`, `refused()`, or more than one of them in that order.
    For one thread at a time.
    """

    def __init__(
        self,
        server: str,
        run: str,
        *,
        start: Target | None = None,
        connect_seconds: float = _CONNECT_SECONDS,
    ) -> None:
        """`server` is as for `Endpoints`, which refuses it with the first attempt; `start` is asked first.

        Where there is another server to go to, connecting to one may take `connect_seconds`.
        """
        self._server = server
        self._run = run
        self._endpoints: Endpoints | None = None
        self._connect_seconds = connect_seconds
        self._usable: Sequence[str] | None = None
        self._next = start
        self._at: Target | None = None
        self._served = False
        self._tried: set[str] = set()
        self._avoided: dict[str, float] = {}
        self._hops = 0
        self.several = start is not None
        """Whether there is, or was, another server to go to."""
        self.follows = False
        """Whether a server that was asked said where to go: there without a wait."""
        self.exhausted = False
        """Whether all have been asked in vain since one of them served."""

    def next(self, timeout: float = 10.0) -> Target:
        """Where to go now; looking up names may take `timeout` seconds.

        Raises:
            ValueError: what was said to be the server is none.
            PathwatchError: as `Endpoints.candidates`.
        """
        self._at, self._served, self.follows = None, False, False
        self._at = self._next or self._from_list(timeout)
        self._next = None
        return self._at

    def served(self) -> None:
        """The server that was gone to has answered."""
        self._served, self._hops = True, 0
        self._tried.clear()

    def refused(self, code: grpc.StatusCode) -> bool:
        """Whether the answer holds wherever one asks: the next attempt stays here."""
        stays = code in _STAYS
        if stays:
            self._next, self.exhausted = self._at, True
        return stays

    def lost(self, owner: str = "", *, silent: bool = False, seconds: float = 0.0) -> None:
        """The attempt ended after so many seconds, or could not be made.

        `owner`: where the server said that the run is. `silent`: it served, and answered no more.
        """
        at = self._at
        if at is None:  # there was nowhere to go
            self.exhausted = True
            return
        now = time.monotonic()
        if self._served and not silent and not owner:
            self._next = at
        else:
            self._tried.add(at.address)
            seconds = _LONGEST_AVOIDED if silent else min(seconds, _LONGEST_AVOIDED)
            if not owner and seconds >= _LEAST_AVOIDED:
                # Finding out once more takes as long again; meanwhile others may have become able to serve.
                self._avoided[at.address] = now + seconds
        away = self._avoided.get(owner, 0.0) > now
        self.follows = owner not in {"", at.address} and not away and self._hops < _MOST_HOPS
        self._hops = self._hops + 1 if self.follows else 0
        if self.follows:
            self.several = True
            self._next = self._target(owner)
        known = self._usable is not None and self._tried.issuperset(self._usable)
        self.exhausted = self._next is None and known

    def _from_list(self, timeout: float) -> Target:
        if self._endpoints is None:
            self._endpoints = Endpoints(self._server, self._run)
        candidates = self._endpoints.candidates(timeout)
        self.several |= len(candidates) > 1
        now = time.monotonic()
        self._avoided = {address: until for address, until in self._avoided.items() if until > now}
        self._usable = [address for address in candidates if address not in self._avoided] or candidates
        fresh = [address for address in self._usable if address not in self._tried]
        if not fresh:
            self._tried.clear()
            fresh = list(self._usable)
        return self._target(fresh[0])

    def _target(self, address: str) -> Target:
        listed = self._endpoints is not None and address in (self._usable or ())
        authority = self._endpoints.authority if self._endpoints is not None and listed else None
        return Target(address, authority, self._connect_seconds if self.several else None)
