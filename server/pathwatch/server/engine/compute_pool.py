"""The threads that compute: jobs take turns, extras are done only where a thread would be idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class ComputePool:
    """May be used from any thread."""

    def __init__(self, threads: int, executor: Executor | None = None) -> None:
        """`executor` is for tests that hold the computing in hand."""
        self._threads = threads
        self._executor = executor or ThreadPoolExecutor(threads, thread_name_prefix="pathwatch-compute")
        self._lock = threading.Lock()
        self._under_way = 0

    @property
    def idle(self) -> bool:
        """Whether a thread has nothing to do."""
        return self._under_way < self._threads

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Have a job done, as soon as those before it let a thread go."""
        with self._lock:
            self._under_way += 1
        future = self._executor.submit(job)
        future.add_done_callback(self._ended)
        return future

    def shutdown(self) -> None:
        """Wait for what is under way; what has not begun is cancelled."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _ended(self, _: Future[Any]) -> None:
        with self._lock:
            self._under_way -= 1
