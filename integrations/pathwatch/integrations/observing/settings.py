"""What a user says when attaching, the same for every framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from pathwatch.client import Credentials
from pathwatch.integrations.observing.probe import Probe
from pathwatch.integrations.observing.stream import Stream
from pathwatch.v1 import run_pb2


class Options(TypedDict, total=False):
    """Keyword arguments of every `attach`; `Settings` says what each means."""

    run: str
    server: str
    probe: Probe | None
    stream: Stream | None
    attempt: int
    config: run_pb2.RunConfig | None
    keep_observations: bool
    credentials: Credentials | None
    check_interval: int
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a job is watched; the same on every rank."""

    run: str
    """Name of the run; created on the server unless it exists."""
    server: str = "127.0.0.1:50051"
    """HOST:PORT of the sidecar. It may come later, or never: training is not held up."""
    probe: Probe | None = None
    """Re-read these training samples every N steps. This or `stream`."""
    stream: Stream | None = None
    """Observe the training batches."""
    attempt: int = 0
    """0, and one more each time the job is restarted from a checkpoint."""
    config: run_pb2.RunConfig | None = None
    """Settings of the run beyond topology and mode, e.g. its policy."""
    keep_observations: bool = False
    """Have the sidecar keep the routing of every sample of every window, so that the run can be exported and
    analysed (docs/integration.md says how much that is)."""
    credentials: Credentials | None = None
    """How to reach a server that is not on this machine."""
    check_interval: int = 10
    """Optimizer steps between two agreements of the ranks on what the service wants."""
    strict: bool = False
    """True: what is wrong with the model or these settings raises when attaching. False: it is logged, and
    the job trains on unobserved."""

    def __post_init__(self) -> None:
        if (self.probe is None) == (self.stream is None):
            raise ValueError("give either probe= or stream=")
        if self.check_interval < 1:
            raise ValueError(f"check_interval must be at least 1, got {self.check_interval}")

    def run_config(self, *, layers: int, experts: int) -> run_pb2.RunConfig:
        """Configuration of the run on the server, for a model of that shape."""
        settings = run_pb2.RunConfig()
        if self.config is not None:
            settings.CopyFrom(self.config)
        settings.keep_observations |= self.keep_observations
        settings.topology.CopyFrom(run_pb2.Topology(layers=layers, experts=experts))
        if self.stream is None:
            settings.mode = run_pb2.OBSERVATION_MODE_PROBE
        else:
            settings.mode = run_pb2.OBSERVATION_MODE_STREAM
            settings.window_steps = self.stream.window_steps
        # Ranks learn of a stop up to one agreement late, and apply it one step after.
        settings.stop_margin_steps = max(settings.stop_margin_steps, self.check_interval + 1)
        return settings

    @classmethod
    def of(cls, options: dict[str, Any] | Options) -> Settings:
        """Settings from keyword arguments.

        Raises:
            ValueError: an argument is unknown, missing or out of bounds.
        """
        try:
            return cls(**options)
        except TypeError as error:
            raise ValueError(f"pathwatch settings: {error}") from error
