"""Readings that could not be made: what that costs, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.capture import Router, RouterRecorder, SilentRoutersError

_logger = QuietLogger("pathwatch.integrations")

MOST_IN_A_ROW = 10
"""So many lost readings without one that worked, and no more are tried."""


class Losing:
    """Turns an exception into one lost reading; each kind is said once, and giving up.

    Routers that were silent because they are no longer in the module are looked for again, once.
    """

    def __init__(self, recorder: RouterRecorder, module: nn.Module, find: Callable[[], list[Router]]) -> None:
        self._recorder = recorder
        self._module = module
        self._find: Callable[[], list[Router]] | None = find
        self._said: set[str] = set()
        self._in_a_row = 0
        self.lost = 0
        self.gave_up = False

    @contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        """Run a part of reading a training batch at `step`."""
        try:
            yield
        except Exception as error:
            self._lose(step, error)

    def worked(self) -> None:
        """A reading was made and sent."""
        self._in_a_row = 0

    def note(self, kind: str, message: str) -> None:
        """Say something once."""
        if kind not in self._said:
            self._said.add(kind)
            _logger.warning("pathwatch: %s", message)

    def _lose(self, step: int, error: Exception) -> None:
        self.lost += 1
        self._in_a_row += 1
        self.note(
            type(error).__name__ + str(error)[:20],
            f"a training batch of step {step} could not be read: {error}. Its samples are lost to pathwatch, "
            "training goes on",
        )
        if isinstance(error, SilentRoutersError):
            self._find_again()
            if "torch._dynamo" in sys.modules:
                self.note("compiled", "what torch.compile compiled is read with Stream(uncompiled=True)")
        if self._in_a_row == MOST_IN_A_ROW and not self.gave_up:
            self.gave_up = True
            _logger.error(
                "pathwatch could not read %d training batches in a row and gives stream mode up on this "
                "rank, training goes on; last at step %d: %s",
                MOST_IN_A_ROW,
                step,
                error,
            )

    def _find_again(self) -> None:
        present = set(self._module.modules())
        if self._find is None or all(router.module in present for router in self._recorder.routers):
            return
        find, self._find = self._find, None
        try:
            self._recorder.renew(find())
        except Exception as error:  # also what a router= of the job raises
            self.note("renew", f"routers were replaced, and no others can be read: {error}")
