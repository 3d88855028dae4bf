"""Kills a server again and again while ranks send to it, at moments drawn from a seed."""

from __future__ import annotations

import random
import signal
import threading
import time

from rank_process import RankProcesses
from server_process import ServerProcess

from pathwatch.server.failpoints import VARIABLE

RECOVERY_SHARE = 0.3
"""Of the kills, those that hit a server on its way up."""
RECOVERY_SECONDS = 1.2
"""About as long as a start takes."""
STALL_SHARE = 0.4
"""Of the lives, those that stall before one of their first commits and die there, if they live to see it: an
acknowledgement that comes too early is then heard."""
STALLED_COMMITS = 20
JITTER_SECONDS = 0.05
"""After the acknowledgement that a kill waits for: so that it comes anywhere in what the server does next."""
TIMEOUT_SECONDS = 240.0


class Killer:
    """Kills `kills` times while between 0 and `messages` messages are acknowledged; a context manager.

    What it draws depends on the seed alone; what a kill meets depends on the machine, too.
    """

    def __init__(
        self, server: ServerProcess, ranks: RankProcesses, *, kills: int, messages: int, seed: int
    ) -> None:
        self._server = server
        self._ranks = ranks
        self._chance = random.Random(seed)  # noqa: S311  # reproducible, not secret
        on_the_way_up = sum(self._chance.random() < RECOVERY_SHARE for _ in range(kills))
        self._after = sorted(self._chance.randrange(messages) for _ in range(kills - on_the_way_up))
        self._on_the_way_up = sorted(self._chance.randrange(len(self._after)) for _ in range(on_the_way_up))
        self.kills = 0
        """Kills so far."""
        self._failure: BaseException | None = None
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")

    def join(self) -> None:
        """Wait until the last kill is done and the server is up; raises what went wrong."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for number, acked in enumerate(self._after):
                self._wait_acked(acked)
                if self._give_up.is_set():
                    return
                self._kill(self._chance.uniform(0, JITTER_SECONDS))
                armed = self._armed()
                for _ in range(self._on_the_way_up.count(number)):
                    self._server.launch()
                    self._kill(self._chance.uniform(0, RECOVERY_SECONDS))
                self._start("" if number == len(self._after) - 1 else armed)
        except BaseException as failure:
            self._failure = failure
            self._ranks.kill()  # nobody would serve them: the job is not to wait for that

    def _armed(self) -> str:
        commit = 1 + self._chance.randrange(STALLED_COMMITS)
        return f"commit.before=stall@{commit}" if self._chance.random() < STALL_SHARE else ""

    def _start(self, armed: str) -> None:
        """One that is armed may die before it answers: what it has to judge is committed as it comes up."""
        self._server.launch({VARIABLE: armed})
        if not self._server.wait_started():
            assert armed, "the server did not start"
            assert self._server.wait() == -signal.SIGKILL
            self._server.start()

    def _kill(self, delay: float) -> None:
        time.sleep(delay)
        self._server.kill()
        self.kills += 1

    def _wait_acked(self, messages: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._ranks.acked < messages and self._server.exit_code is None and not self._give_up.is_set():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._ranks.acked} of {messages} messages acknowledged")
            time.sleep(0.002)
