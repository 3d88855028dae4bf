"""What is run beside training, and training alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bench.overhead.job import Job
from bench.overhead.order import BASELINE


class Variant(Protocol):
    """One way to take routing data from a job. Attached for a block of steps at a time."""

    name: str
    every: int
    """Optimizer steps between two in which something is taken in; 0 = there is none."""
    gives: str
    """What one gets, in a few words."""
    package: str
    """Whose code its is."""

    @property
    def taken(self) -> int:
        """How often something was taken in so far."""

    def attach(self, job: Job) -> None:
        """Begin, or go on where the last block ended."""

    def extra(self) -> Mapping[str, Any]:
        """Arguments to add to the forward pass."""

    def after_step(self, output: object) -> None:
        """What the training script does after every step."""

    def settle(self) -> None:
        """Wait until what was begun by attaching is done."""

    def detach(self) -> None:
        """Leave the job as it was."""


class Without:
    """The job alone: the baseline; under another name the control, whose ratios to it should be 1."""

    every = 0
    gives = "nothing"
    package = "nobody"
    taken = 0

    def __init__(self, name: str = BASELINE) -> None:
        self.name = name

    def attach(self, job: Job) -> None:
        """Nothing to do."""

    def extra(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def after_step(self, output: object) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to wait for."""

    def detach(self) -> None:
        """Nothing to undo."""
