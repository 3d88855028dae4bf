"""Brings writes to the store; a value that it can never take holds up the run it is of, and no other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pathwatch.server.store.interface import Store, StoreError, UnstorableError
from pathwatch.server.store.rows import DeleteRun, Write, run_of


def commit(store: Store, writes: list[Write], lost: Collection[str]) -> dict[str, Exception]:
    """Make the writes durable, but of the runs `lost` only their deletion, and empty the list.

    Gives the runs of which something cannot be stored, now or ever, and why: of such a run nothing is stored
    but a deletion. Raises StoreError where the store takes nothing just now; what is left in the list is to
    be tried again, and nobody may be told of any of it before.
    """
    writes[:] = [write for write in writes if isinstance(write, DeleteRun) or run_of(write) not in lost]
    if not writes or _commit(store, writes) is None:
        writes.clear()
        return {}
    by_run: dict[str, list[Write]] = {}
    for write in writes:
        by_run.setdefault(run_of(write), []).append(write)
    unstorable: dict[str, Exception] = {}
    stored: set[str] = set()
    try:
        for run, own in by_run.items():
            error = _commit_run(store, own)
            if error is None:
                stored.add(run)
            else:
                unstorable[run] = error
    except StoreError:
        # A batch is appended: what is stored must not be stored again.
        writes[:] = [write for write in writes if run_of(write) not in stored]
        raise
    writes.clear()
    return unstorable


def _commit_run(store: Store, writes: Sequence[Write]) -> Exception | None:
    """Writes of one run; what was to be written before its deletion is no matter."""
    begin = max((number for number, write in enumerate(writes, 1) if isinstance(write, DeleteRun)), default=0)
    if begin and (error := _commit(store, writes[begin - 1 : begin])):
        return error
    return _commit(store, writes[begin:])


def _commit(store: Store, writes: Sequence[Write]) -> Exception | None:
    """Why the store can never take the writes; None = they are stored. Raises StoreError."""
    try:
        store.commit(writes)
    except Exception as error:
        if isinstance(error, StoreError) and not isinstance(error, UnstorableError):
            raise
        return error
    return None
