"""The changes that stored signals tell of."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from google.protobuf.message import DecodeError

from pathwatch.server.changes.diff import Change, changes
from pathwatch.server.store.rows import SignalRow
from pathwatch.v1 import signal_pb2

log = logging.getLogger("pathwatch.server")


def changes_by_revision(rows: Sequence[SignalRow], seen: int) -> Iterator[tuple[int, list[Change]]]:
    """Each revision after `seen` with what it changed, oldest first.

    The rows are a run's signals from revision `seen` on, which the next is compared with; 0 = from its first.
    One that is damaged is said in the log and changes nothing: what it changed comes with the next, unless
    that has nothing before it to be compared with.
    """
    before: signal_pb2.Signal | None = None
    comparable = seen == 0
    for row in rows:
        told: list[Change] = []
        try:
            after = signal_pb2.Signal.FromString(row.signal)
            told = list(changes(before, after))  # with nothing before it, a check of all it says
        except (DecodeError, ValueError) as error:  # ValueError: a phase or an action that there is not
            log.error(
                "signal %d of run %r cannot be read (%s): its changes are told with the next one, or never; "
                "more of what is stored may be damaged",
                row.revision,
                row.run,
                error,
                extra={"run": row.run, "revision": row.revision},
            )
        else:
            told = told if comparable else []
            before, comparable = after, True
        if row.revision > seen:
            yield row.revision, told


def is_readable(row: SignalRow) -> bool:
    """Whether the next signal can be compared with this one."""
    try:
        for _ in changes(None, signal_pb2.Signal.FromString(row.signal)):
            pass
    except (DecodeError, ValueError):
        return False
    return True
