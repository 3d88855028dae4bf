"""Memory that the windows of runs take until they are judged, bounded per run and in all."""

from __future__ import annotations

from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import OverloadError


class KeptBytes:
    """Bytes by run. Used by the writer thread only."""

    def __init__(self, limits: Limits) -> None:
        self.total = 0
        self._per_run = limits.window_bytes_per_run
        self._most = limits.window_bytes
        self._by_run: dict[str, int] = {}

    def set(self, run: str, held: int) -> None:
        """The run holds so much now."""
        self.total += held - self._by_run.pop(run, 0)
        if held:
            self._by_run[run] = held

    def check_growth(self, run: str, held: int, more: int) -> None:
        """Whether a run that holds `held` may take `more`. Raises OverloadError.

        Half of all is free to whoever comes first; the other half is for runs below their fair share of the
        first, so that no run can take the room that others need to complete their windows.
        """
        if not more:
            return
        if held + more > self._per_run:
            raise OverloadError(
                "window_bytes_per_run",
                f"the windows of run {run!r} that are not judged yet hold {held} bytes, this would add "
                f"{more}; at most {self._per_run} are kept: send watermarks, or take a smaller capacity",
            )
        total = self.total - self._by_run.get(run, 0) + held + more
        half = self._most // 2
        sharing = len(self._by_run) + (run not in self._by_run)
        if total > self._most or (total > half and held + more > half // sharing):
            raise OverloadError(
                "window_bytes",
                f"the windows of all {sharing} runs that are not judged yet hold {self.total} bytes; "
                f"at most {self._most} are kept, and run {run!r} holds its fair share, {held}",
            )
