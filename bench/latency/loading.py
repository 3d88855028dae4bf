"""The load beside what is measured, as a context."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]


class Load:
    """`bench.latency.load` in a process of its own while entered."""

    def __init__(self, address: str, run: str, *, rate: float | None = None) -> None:
        """`rate` is in megabytes of weights per second; None = as fast as the server takes."""
        self._command = [sys.executable, "-m", "bench.latency.load", address, run]
        if rate is not None:
            self._command += ["--rate", str(rate)]
        self._rates: list[float] = []

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._started = threading.Event()
        self._reader.start()
        # The first second holds imports and connecting.
        if not self._started.wait(60):
            raise RuntimeError("the load has not begun within a minute")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def rate(self) -> float:
        """Megabytes of weights acknowledged per second: the median of all seconds after the first."""
        return statistics.median(self._rates[1:] or self._rates)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._rates.append(float(line))
            self._started.set()
