"""A computation that several threads may come by: done once, by whichever comes first."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(ABC, Generic[T]):
    """Shared by threads; each `do`es what no other has begun."""

    def __init__(self) -> None:
        self._begun = threading.Lock()
        self._result: Future[T] = Future()

    @property
    def done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self._result.done()

    @property
    def failed(self) -> bool:
        """Whether it has been done, in vain."""
        return self._result.done() and self._result.exception() is not None

    def do(self) -> None:
        """Compute it, unless another thread does or has done."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._result.set_result(self._compute())
        except BaseException as error:
            self._result.set_exception(error)

    def result(self) -> T:
        """What it came to, once it has been begun. Raises what computing it raised."""
        return self._result.result()

    @abstractmethod
    def _compute(self) -> T: ...
