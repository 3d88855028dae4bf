"""What the servers are known to hold of the windows of runs, and so will never want.

Only what they have acknowledged counts, or have said themselves. So nothing is left out on account of what
they refuse, or of what never reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator

import grpc
import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.checks import MAX_STEP
from pathwatch.server.engine.run_config import sketch_settings
from pathwatch.server.sketch.bottom_k import BottomK
from pathwatch.v1 import run_pb2

MOST_SAMPLES = 1 << 19
"""Remembered of all windows together, at about a hundred bytes each."""
MOST_WINDOWS = 4096
_PATIENCE_SECONDS = 1.0


class KnownWindow:
    """One group's window."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept = BottomK(capacity)
        self._advised: int | None = None
        self._under_way = 0
        self._answered = asyncio.Event()

    @property
    def hash_limit(self) -> int | None:
        """Samples with a hash at or above it change nothing any more; None while all may. It only falls."""
        limits = [limit for limit in (self._kept.hash_limit, self._advised) if limit is not None]
        return min(limits, default=None)

    @property
    def size(self) -> int:
        """Samples remembered."""
        return self._kept.size

    def hold(self, sample_ids_N: NDArray[np.int64], hashes_N: NDArray[np.uint64]) -> None:
        """A server holds these samples, as far as they are among the smallest."""
        ids_N, first_N = np.unique(sample_ids_N, return_index=True)
        self._kept.admit(ids_N, hashes_N[first_N])

    def advise(self, hash_limit: int) -> None:
        """A server says itself what it wants no more."""
        self._advised = hash_limit if self._advised is None else min(self._advised, hash_limit)

    def send(self, samples: int) -> None:
        """So many go to a server, whose answer is awaited."""
        self._under_way += samples

    def answered(self, samples: int) -> None:
        """Of so many there is an answer, or there will be none."""
        self._under_way -= samples
        self._answered.set()

    async def room(self, samples: int) -> None:
        """Wait while as many samples as a window keeps are under way: their answers may spare these.

        For a second at most: to send too much costs bytes, and nothing else.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._under_way and self._under_way + samples > self._capacity:
                    self._answered.clear()
                    await self._answered.wait()


class KnownRun:
    """One attempt of a run. Used on the event loop."""

    def __init__(self, run: run_pb2.Run, attempt: int, windows: _Windows) -> None:
        self.attempt = attempt
        self.settings = sketch_settings(run.name, run.config)
        self.streams = 0
        self.doubtful = False
        """Whether a server has ended a stream of it: what that held may have been lost, and streams to come
        begin anew."""
        self._windows = windows
        self._first_step = MAX_STEP
        self._newest_step = -1

    def window(self, group: str, step: int) -> KnownWindow:
        """The group's window that holds the step."""
        key = (self, self.settings.window_of(step)[1], group)
        return self._windows.get(key, self.settings.capacity)

    def hold(
        self, group: str, step: int, sample_ids_N: NDArray[np.int64], hashes_N: NDArray[np.uint64]
    ) -> None:
        """A server holds these observations of a step."""
        self._first_step = min(self._first_step, step)
        self.see(step)
        window = self.window(group, step)
        before = window.size
        window.hold(sample_ids_N, hashes_N)
        self._windows.grow(window.size - before)

    def see(self, step: int) -> None:
        """A server has heard of the step."""
        self._newest_step = max(self._newest_step, step)

    def is_news(self, step: int) -> bool:
        """Whether an observation of this step may tell a server with which one an attempt begins, or how far
        it has come, whatever becomes of the observation."""
        return not self._first_step <= step <= self._newest_step


class KnownRuns:
    """The runs that streams are open of. Used on the event loop."""

    def __init__(self, *, most_samples: int = MOST_SAMPLES, most_windows: int = MOST_WINDOWS) -> None:
        self._windows = _Windows(most_samples, most_windows)
        self._runs: dict[tuple[str, int, int], KnownRun] = {}

    @contextlib.contextmanager
    def enter(self, run: run_pb2.Run, attempt: int) -> Iterator[KnownRun]:
        """What is known of it: the same for all streams of one life of the run, while any is open."""
        key = (run.name, attempt, run.created_at.ToNanoseconds())
        known = self._runs.get(key)
        if known is None:
            known = self._runs[key] = KnownRun(run, attempt, self._windows)
        known.streams += 1
        try:
            yield known
        except grpc.aio.AioRpcError:
            known.doubtful = True
            raise
        finally:
            known.streams -= 1
            if self._runs.get(key) is known and (known.doubtful or not known.streams):
                del self._runs[key]


class _Windows:
    """All windows; where there are too many, those not asked for longest are forgotten: it is never wrong."""

    def __init__(self, most_samples: int, most_windows: int) -> None:
        self._most_samples = most_samples
        self._most_windows = most_windows
        self._windows: OrderedDict[tuple[KnownRun, int, str], KnownWindow] = OrderedDict()
        self._samples = 0

    def get(self, key: tuple[KnownRun, int, str], capacity: int) -> KnownWindow:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = KnownWindow(capacity)
            self._forget()
        self._windows.move_to_end(key)
        return window

    def grow(self, samples: int) -> None:
        self._samples += samples
        self._forget()

    def _forget(self) -> None:
        while len(self._windows) > self._most_windows or (
            self._samples > self._most_samples and len(self._windows) > 1
        ):
            _, window = self._windows.popitem(last=False)
            self._samples -= window.size
