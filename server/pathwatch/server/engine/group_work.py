"""One group's part of a round, metrics and evidence: computed once, by whichever thread comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathwatch.server.engine.judge import PluginFailureError, SampleLosses, sample_losses
from pathwatch.server.engine.once import Once
from pathwatch.server.engine.run_config import metric_settings
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.verdict import Evidence
from pathwatch.v1 import run_pb2

if TYPE_CHECKING:
    from pathwatch.server.metrics.summary import GroupPart


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """What is known of a group without the others; a function of its window and geometry to the bit."""

    part: GroupPart
    losses: SampleLosses
    partial: bool
    """Of its window, as far as it was known by then."""
    evidence: Evidence | None
    """None = not measured."""
    failure: Exception | None = None
    """Why it could not be measured."""


class GroupWork(Once[GroupResult]):
    """Lets go of the window when it is done."""

    def __init__(
        self,
        config: run_pb2.RunConfig,
        window: Callable[[], WindowArrays],
        geometry: Geometry | None,
        measure: Callable[[WindowArrays], Evidence] | None,
        nbytes: int = 0,
    ) -> None:
        """`measure` is of the run's detector, for any thread; None = evidence is not wanted from here.

        `window` is called once, in the thread that computes; `nbytes` of arrays are held by it.
        """
        super().__init__()
        self._config = config
        self._window: Callable[[], WindowArrays] | None = window
        self._nbytes = nbytes
        self._geometry = geometry
        self._measure = measure

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays it holds until it is done."""
        return 0 if self._window is None else self._nbytes

    def holds_with(self, geometry: Geometry | None) -> bool:
        """Whether it is of this geometry, and has not failed."""
        return self._geometry is geometry and not self.failed

    def _compute(self) -> GroupResult:
        window = self._window
        assert window is not None  # noqa: S101  # it is computed once
        try:
            return self._computed(window())
        finally:
            self._window = None

    def _computed(self, window: WindowArrays) -> GroupResult:
        from pathwatch.server.metrics.summary import group_part

        part = group_part(window, self._geometry, metric_settings(self._config))
        evidence, failure = None, None
        if self._measure is not None:
            try:
                evidence = self._measure(window)
            except (PluginFailureError, ValueError) as error:
                failure = error
        return GroupResult(
            part=part,
            losses=sample_losses(window),
            partial=window.partial,
            evidence=evidence,
            failure=failure,
        )
