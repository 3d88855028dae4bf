"""Leases of several servers in one process, which a test can take away, and a store that is held to them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from pathwatch.server.store.interface import FencedError, StoreError
from pathwatch.server.store.leases import Held
from pathwatch.server.store.rows import Write, run_of


class LeaseTable:
    """Who has which run, as a Redis would know it."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.epochs: Counter[str] = Counter()
        """How often each run was taken."""
        self.lock = threading.RLock()

    def steal(self, run: str, owner: str) -> None:
        """As if the lease had run out unnoticed, and another had taken it."""
        with self.lock:
            self.owners[run] = owner
            self.epochs[run] += 1


class MemoryLeases:
    """`Leases` of one server. While `away` is set, nobody answers."""

    def __init__(self, table: LeaseTable, own: str, *, seconds: float = 3600.0) -> None:
        self._table = table
        self._own = own
        self._seconds = seconds
        self._held: dict[str, int] = {}
        """Run → epoch."""
        self.away = False
        self.asked: list[str] = []
        """Runs that were to be taken."""
        self.renewals = 0

    @property
    def own(self) -> str:
        return self._own

    @property
    def seconds(self) -> float:
        return self._seconds

    @property
    def held(self) -> Set[str]:
        with self._table.lock:
            return set(self._held)

    def epoch(self, run: str) -> int | None:
        with self._table.lock:
            return self._held.get(run)

    def take(self, run: str) -> Held | None:
        self.asked.append(run)
        self._check()
        with self._table.lock:
            if run in self._held:
                return None
            owner = self._table.owners.setdefault(run, self._own)
            if owner != self._own:
                return Held(owner, self._seconds)
            self._table.epochs[run] += 1
            self._held[run] = self._table.epochs[run]
            return None

    def renew(self) -> Mapping[str, Held]:
        self.renewals += 1
        self._check()
        with self._table.lock:
            owners = {run: self._table.owners.get(run, "") for run in self._held}
            lost = {run: Held(owner, self._seconds) for run, owner in owners.items() if owner != self._own}
            for run in lost:
                del self._held[run]
            return lost

    def release(self, runs: Iterable[str]) -> None:
        with self._table.lock:
            for run in set(runs) & self._held.keys():
                del self._held[run]
                if not self.away and self._table.owners.get(run) == self._own:
                    del self._table.owners[run]
        self._check()

    def _check(self) -> None:
        if self.away:
            raise StoreError("the leases are away")


class LeasedStore:
    """Another store, of which each of several servers writes what it has the lease of.

    Takes nothing while `full` is set.
    """

    def __init__(self, store: Any, table: LeaseTable, own: str) -> None:
        self._store = store
        self._table = table
        self._own = own
        self.full = False
        self.let_go_of: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, writes: Sequence[Write]) -> None:
        with self._table.lock:
            if self.full:
                raise StoreError("cannot write: the store is away")
            for run in {run_of(write) for write in writes}:
                if (owner := self._table.owners.get(run, "")) != self._own:
                    raise FencedError(f"run {run!r} is another server's now", owner)
            self._store.commit(writes)

    def let_go(self, run: str) -> None:
        self.let_go_of.append(run)

    def close(self) -> None:
        """It is the others', too."""
