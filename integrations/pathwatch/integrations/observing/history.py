"""What a job knows of its run's past: which attempt it is, and which checkpoints there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.checkpoints import SavedCheckpoints
from pathwatch.integrations.observing.settings import Settings
from pathwatch.integrations.observing.sidecar import Sidecar

_logger = QuietLogger("pathwatch.integrations")

_VERSION = 1


class History:
    """Counts attempts; travels in the job's checkpoints."""

    def __init__(self, settings: Settings, agreement: Agreement, sidecar: Sidecar) -> None:
        self._settings = settings
        self._agreement = agreement
        self._sidecar = sidecar
        self.attempt = -1
        """The present one; before `begin` that of the restored checkpoint, -1 = none."""
        self.checkpoints = SavedCheckpoints()

    def begin(self) -> int:
        """Number of the attempt that begins with this process. Collective.

        It comes after the restored one, and after the newest that the sidecar knows of: a job that died
        before it saved anything leaves no other trace.
        """
        if self._settings.attempt is not None:
            self.attempt = self._settings.attempt
        else:
            known = self._sidecar.last_attempt() if self._agreement.rank == 0 else -1
            self.attempt = self._agreement.first(max(self.attempt, known) + 1)
        return self.attempt

    def go_back(self, step: int) -> int:
        """Number of the attempt that goes on from an earlier step."""
        self.checkpoints.rewind(step)
        self.attempt += 1
        return self.attempt

    def state_dict(self, step: int, tag: str | None, path: Path | None) -> dict[str, Any]:
        """Plain Python values, for the checkpoint of that step, tag and folder where these are known."""
        checkpoints = SavedCheckpoints()
        checkpoints.load_state_dict(self.checkpoints.state_dict())
        if tag is not None:
            checkpoints.add(step, tag, path)
        return {
            "version": _VERSION,
            "run": self._settings.run,
            "attempt": self.attempt,
            "step": step,
            "checkpoints": checkpoints.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Take over what a checkpoint says; of another run's, attempts and checkpoints do not count.

        Returns:
            False when the state cannot be read, which is logged.
        """
        if state.get("version") != _VERSION:
            _logger.warning(
                "pathwatch: the checkpoint holds state of version %r, this release reads %d; visits and "
                "saved checkpoints start anew",
                state.get("version"),
                _VERSION,
            )
            return False
        if state["run"] == self._settings.run:
            self.attempt = max(self.attempt, int(state["attempt"]))
            self.checkpoints.load_state_dict(state["checkpoints"])
        return True
