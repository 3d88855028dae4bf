"""What a user says when attaching, the same for every framework."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from pathwatch.client import Credentials, Spool
from pathwatch.integrations.capture import RouterHook
from pathwatch.integrations.observing.checkpoints import Checkpoints
from pathwatch.integrations.observing.probe import Probe
from pathwatch.integrations.observing.stream import Stream
from pathwatch.v1 import run_pb2


class Options(TypedDict, total=False):
    """Keyword arguments of every `attach`; `Settings` says what each means."""

    run: str
    server: str
    probe: Probe | None
    stream: Stream | None
    router: RouterHook | None
    attempt: int | None
    policy: str
    policy_options: Mapping[str, str]
    detector: str
    thresholds: Sequence[float]
    config: run_pb2.RunConfig | None
    keep_observations: bool
    credentials: Credentials | None
    spool: Spool | str | os.PathLike[str] | None
    check_interval: int
    checkpoints: Checkpoints | None
    strict: bool
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a job is watched; the same on every rank."""

    run: str
    """Name of the run; created on the server unless it exists. Not given: `PATHWATCH_RUN` of the
    environment."""
    server: str = "127.0.0.1:50051"
    """HOST:PORT of the sidecar; of several servers a list, `dns:///NAME:PORT` or `file:///PATH`
    (docs/scale.md). It may come later, or never: training is not held up. Not given: `PATHWATCH_SERVER` of
    the environment, if set."""
    probe: Probe | None = None
    """Re-read these training samples every N steps. This or `stream`."""
    stream: Stream | None = None
    """Observe the training batches."""
    router: RouterHook | None = None
    """Which modules are routers and how they are read, said of each by its qualified name; None = found by
    themselves (docs/routers.md)."""
    attempt: int | None = None
    """0, and one more each time the job is restarted or goes back. None: the next one, after that of the
    restored checkpoint and the newest that the sidecar knows of (asked once, within 2 s, by rank 0)."""
    policy: str = ""
    """When to stop: `all-groups` (default), `quorum`, `patience`, or a plug-in's name."""
    policy_options: Mapping[str, str] = field(default_factory=dict)
    """Options of the policy, e.g. `{"quorum": "0.5"}`."""
    detector: str = ""
    """Name of a detector plug-in; empty = the default."""
    thresholds: Sequence[float] = ()
    """Cumulative routing weights a pathway covers, τ (paper §4.1); empty = 0.7, 0.5, 0.6, 0.8."""
    config: run_pb2.RunConfig | None = None
    """Further settings of the run; those above win."""
    keep_observations: bool = False
    """Have the sidecar keep the routing of every sample of every window, so that the run can be exported and
    analysed (docs/integration.md says how much that is)."""
    credentials: Credentials | None = None
    """How to reach a server that is not on this machine, or that wants a token. A token not given:
    `PATHWATCH_TOKEN`, or the file of `PATHWATCH_TOKEN_FILE`, of the environment."""
    spool: Spool | str | os.PathLike[str] | None = None
    """A folder, or `pathwatch.client.Spool(folder, max_bytes)`, to keep on disk what memory cannot hold while
    the sidecar is away (docs/spool.md); None = memory alone."""
    check_interval: int = 10
    """Optimizer steps between two agreements of the ranks on what the service wants."""
    checkpoints: Checkpoints | None = field(default_factory=Checkpoints)
    """What to do in the folders of saved checkpoints; None = nothing."""
    strict: bool = False
    """True: what is wrong with the model or these settings raises when attaching. False: it is logged, and
    the job trains on unobserved."""
    enabled: bool = True
    """False: nothing is observed, nothing else needs to be given, all questions are answered with no."""

    def __post_init__(self) -> None:
        if not self.enabled:
            return
        if not self.run:
            raise ValueError("name the run: run=…, or PATHWATCH_RUN in the environment")
        if (self.probe is None) == (self.stream is None):
            raise ValueError("give either probe= or stream=")
        if self.check_interval < 1:
            raise ValueError(f"check_interval must be at least 1, got {self.check_interval}")
        self.spool_settings()

    def spool_settings(self) -> Spool | None:
        """Where the stream keeps what memory cannot hold. Raises ValueError."""
        return self.spool if self.spool is None or isinstance(self.spool, Spool) else Spool(self.spool)

    def run_config(self, *, layers: int, experts: int) -> run_pb2.RunConfig:
        """Configuration of the run on the server, for a model of that shape."""
        settings = run_pb2.RunConfig()
        if self.config is not None:
            settings.CopyFrom(self.config)
        settings.keep_observations |= self.keep_observations
        settings.policy = self.policy or settings.policy
        settings.policy_options.update(self.policy_options)
        settings.detector = self.detector or settings.detector
        if self.thresholds:
            settings.thresholds[:] = self.thresholds
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
        """Settings from keyword arguments, with what the environment says where they are silent.

        Raises:
            ValueError: an argument is unknown, missing or out of bounds.
        """
        refuse_unknown(options, [item.name for item in fields(cls)], "pathwatch settings")
        given: dict[str, Any] = {"run": os.environ.get("PATHWATCH_RUN", "")}
        if server := os.environ.get("PATHWATCH_SERVER"):
            given["server"] = server
        credentials = Credentials.from_environment(options.get("credentials"))
        try:
            return cls(**(given | options | {"credentials": credentials}))
        except TypeError as error:
            raise ValueError(f"pathwatch settings: {error}") from error


def refuse_unknown(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raise ValueError for a name that is not known, with the nearest one that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"{where}: unknown {name!r}; {hint}")
