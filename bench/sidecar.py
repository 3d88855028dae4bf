"""A server in a process of its own, as `pathwatch serve` starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bench.processes import cpu_seconds


class Sidecar:
    """A context manager: serving when entered, stopped by SIGTERM when left."""

    def __init__(
        self,
        data: Path,
        *,
        limits: Sequence[str] = (),
        options: Sequence[str] = (),
        listen: str = "127.0.0.1:0",
        core: int | None = None,
        keeps_data: bool = True,
    ) -> None:
        """`limits` are NAME=VALUE, `options` further ones of the command line; it uses `core` and no other.

        Without `keeps_data`, as of a relay, `data` only names the log beside it.
        """
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        self._command = [*pinned, sys.executable, "-m", "pathwatch.server.cli", "serve"]
        self._command += ["--data", str(data)] if keeps_data else []
        self._command += ["--listen", listen, "--http", "127.0.0.1:0", *options]
        for limit in limits:
            self._command += ["--limit", limit]
        self._log = data.parent / f"{data.name}.log"
        self.grpc = ""
        """HOST:PORT."""
        self.http = ""
        """HOST:PORT."""

    def __enter__(self) -> Sidecar:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)
        first = self._process.stdout.readline() if self._process.stdout else ""
        if not first:
            raise RuntimeError(f"the server did not start: {self._log.read_text()[-2000:]}")
        addresses = dict(part.split("=", 1) for part in first.split())
        self.grpc, self.http = addresses["grpc"], addresses["http"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far."""
        return cpu_seconds(self.pid)

    @property
    def resident_bytes(self) -> int:
        """What it holds in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def log(self) -> str:
        """What it said on stderr."""
        return self._log.read_text()
