"""A real redis-server that can be killed, frozen and started again on the same port and data."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ports import lasting_port
from redis import Redis
from redis.exceptions import RedisError

from pathwatch.server.store.interface import StoreError

T = TypeVar("T")

SECONDS = 30.0
PATIENCE_SECONDS = 120.0
"""A sentinel that was held up for two seconds does nothing for half a minute."""


def until(done: Callable[[], T]) -> T:
    """Tries again and again, as the engine does, until nothing is raised; what comes of it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return done()
        except (StoreError, AssertionError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


class RedisProcess:
    """Runs from the start. `settings` are those of redis.conf; by default every write is fsynced."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.port = lasting_port()
        self.settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "dir": str(folder),
            "bind": "127.0.0.1",
            "daemonize": "no",
            "enable-debug-command": "yes",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def client(self, **options: object) -> Redis:
        return Redis(port=self.port, socket_timeout=SECONDS, **options)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = [part for name, value in self.settings.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), *options], stdout=log, stderr=log
            )
        try:
            self.wait_answering()
        except BaseException:
            self.kill()
            raise

    def wait_answering(self) -> None:
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError as error:
            return "NOAUTH" in str(error)

    def in_cluster(self) -> bool:
        """Whether it takes commands as a node of one: each of them does in its own time."""
        with self.client() as client:
            return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: connections stay open, nothing is answered; SIGCONT in the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait(SECONDS)
