"""State in Redis: a commit of a run is applied whole by one script, once, and acknowledged by Redis when it
returns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pathwatch.server.config.redis import RedisAddress, RedisOptions, Topology
from pathwatch.server.failpoints import reach
from pathwatch.server.store.answers import StorageInfo
from pathwatch.server.store.interface import FencedError, StoreError, UnstorableError
from pathwatch.server.store.redis_connection import RedisConnection
from pathwatch.server.store.redis_fence import Fences, fencing
from pathwatch.server.store.redis_keys import key, keys
from pathwatch.server.store.redis_listing import RunListing
from pathwatch.server.store.redis_log import Commit, CommitLog
from pathwatch.server.store.redis_reads import RedisReader
from pathwatch.server.store.redis_state import check_servers, storage_info
from pathwatch.server.store.redis_writes import SCRIPT, arguments
from pathwatch.server.store.rows import DeleteRun, PutRun, Write, run_of

log = logging.getLogger("pathwatch.server")

_DONE = (b"APPLIED", b"AGAIN")
"""What a script says of a commit that is applied."""


class RedisStore(RedisReader):
    """`Store` on Redis 6.2 or later, or Valkey."""

    remedy = "delete the run, or restore a backup of what Redis keeps on disk"

    def __init__(self, address: RedisAddress, options: RedisOptions, *, fence: Fences | None = None) -> None:
        """Writes no run for which there is no `fence`; None = no other server writes. Raises StoreError."""
        super().__init__(RedisConnection(address, options))
        self._options = options
        self._fence = fence
        self._commits = CommitLog()
        self._refused: dict[str, UnstorableError] = {}
        """Runs that are not as this server left them: nothing is written before they are taken up."""
        self._listing = RunListing(self._connection)
        self._seen_connections = 0
        try:
            check_servers(self._connection, is_cluster=address.topology is Topology.CLUSTER)
            if fence is None:
                # Whatever else writes to them from now on is noticed.
                self._begin(self.names())
        except BaseException:
            self._connection.close()
            raise

    def commit(self, writes: Sequence[Write]) -> None:
        by_run: dict[str, list[Write]] = {}
        for write in writes:
            by_run.setdefault(run_of(write), []).append(write)
        for run in by_run:
            if refusal := self._refused.get(run):
                raise refusal
        self._begin(run for run in by_run if not self._commits.knows(run))
        encoded = {run: self._encoded(run, own) for run, own in by_run.items()}
        commits = {
            run: self._commits.add(run, by_run[run][said:], values, said)
            for run, (said, values) in encoded.items()
        }
        try:
            reach("commit.before")
        except OSError as error:
            raise self._connection.failure("write to", error) from error
        self._listing.put(
            run for run, own in by_run.items() if any(isinstance(write, PutRun) for write in own)
        )
        self._apply(commits)
        if (connections := self._connection.connections) != self._seen_connections:
            self._look_after_others(commits)
            self._seen_connections = connections
        reach("commit.after")
        for run, own in by_run.items():
            self._commits.applied(run)
            if isinstance(own[-1], DeleteRun):
                self._listing.remove(run)
        self._commits.drop_old()

    def take_up(self, run: str) -> None:
        if run in self._refused or not self._commits.knows(run):
            self._begin([run])
            self._refused.pop(run, None)

    def let_go(self, run: str) -> None:
        self._commits.forget(run)
        self._refused.pop(run, None)
        self._listing.forget(run)

    def storage(self) -> StorageInfo:
        return storage_info(self._connection)

    def close(self) -> None:
        self._connection.close()

    def _begin(self, runs: Iterable[str]) -> None:
        for run in runs:
            mark = self._connection.command("GET", key(run, "commits"))
            self._commits.begin(run, (mark or b"").decode())

    def _encoded(self, run: str, writes: Sequence[Write]) -> tuple[int, list[bytes | str | int]]:
        """How many of the writes may be stored already, and the others as arguments."""
        said = self._commits.said_before(run, writes)
        try:
            return said, arguments(writes[said:], self._commits.number(run))
        except MemoryError as error:
            raise self._connection.failure("write to", error) from error
        except Exception as error:
            raise self._never(f"{type(error).__name__}: {error}") from error

    def _never(self, why: object) -> UnstorableError:
        return UnstorableError(f"cannot write to Redis at {self._connection.address}, now or ever: {why}")

    def _apply(self, commits: Mapping[str, Sequence[Commit]], *, again: bool = False) -> None:
        """Raises what keeps any of them from being applied; the others may be."""
        calls = {run: [self._call(run, commit) for commit in own] for run, own in commits.items()}
        lost: dict[str, list[Commit]] = {}
        problems: list[StoreError] = []
        for run, replies in self._connection.send(calls, self._options.wait_replicas).items():
            # Each follows the one before: where one is applied, all before it are.
            done = max((n for n, one in enumerate(replies, 1) if _status(one) in _DONE), default=0)
            if done == len(replies):
                continue
            answer = replies[done]
            if (
                _status(answer) == b"AT"
                and not again
                and (chain := self._commits.after(run, answer[1].decode()))
            ):
                lost[run] = chain
            else:
                problems.append(self._problem(run, answer))
        # What passes first: then all is tried again.
        problems.sort(key=lambda problem: isinstance(problem, UnstorableError))
        if problems:
            raise problems[0]
        if lost:
            log.warning(
                "Redis at %s has lost the newest commits of %s: they are written again",
                self._connection.address,
                ", ".join(sorted(lost)),
            )
            self._listing.put_again(lost)
            self._apply(lost, again=True)

    def _problem(self, run: str, answer: Any) -> StoreError:
        """What to raise for what a script has answered."""
        if isinstance(answer, Exception):
            if str(answer).startswith("WRONGTYPE"):
                return self._never(f"a key of run {run!r} was overwritten: {answer}")
            return self._connection.failure("write to", answer)
        error: UnstorableError
        where = f"run {run!r} in Redis at {self._connection.address}"
        if _status(answer) == b"FENCED":
            epoch, owner = answer[1].decode(), answer[2].decode()
            of_whom = f", of {owner}" if owner else ""
            error = FencedError(
                f"{where} is another server's now: its lease has epoch {epoch}{of_whom}", owner
            )
        elif not (owner := answer[2].decode()) and self._commits.is_older(run, answer[1].decode()):
            error = self._never(f"{where} was set back, by more than is kept to be written again")
        else:
            error = FencedError(
                f"{where} was written by another server; one server at a time may have a run", owner
            )
        self._commits.forget(run)
        self._refused[run] = error
        return error

    def _look_after_others(self, commits: Mapping[str, object]) -> None:
        """With a new connection: whether Redis still has what it had of runs that are not written to now."""
        for run, commit in self._commits.newest().items():
            if run not in commits:
                try:
                    self._apply({run: [commit]})
                    if commit.deletes:
                        self._listing.remove(run)
                except UnstorableError as error:
                    log.error("%s", error)

    def _call(self, run: str, commit: Commit) -> list[bytes | str | int]:
        names = keys(run)
        return [
            *("EVAL", SCRIPT, len(names)),
            *names,
            *fencing(run, self._fence),
            *(commit.mark, len(commit.accepts), *commit.accepts, *commit.arguments),
        ]


def _status(answer: Any) -> bytes | None:
    return answer[0] if isinstance(answer, list) else None
