"""Plug-ins as the judge uses them: our own in this process, those of other packages in one of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pathwatch.server import plugins
from pathwatch.server.engine.hosting import frames
from pathwatch.server.engine.hosting.process import HostedError, PluginProcess
from pathwatch.server.engine.refusal import one_line
from pathwatch.server.metrics.plugin import Metric
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.verdict import (
    Checkpoint,
    Decision,
    Detector,
    Evidence,
    GroupVerdict,
    Policy,
    RankedCheckpoint,
)

MAX_RESTARTS = 2
"""Times a metric that was cut off is started again."""


class HostedDetector:
    """A detector in a process of its own; every call raises HostedError where it gives no answer."""

    def __init__(self, name: str) -> None:
        self._process = _start(plugins.DETECTORS, name, {})

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def measure(self, window: WindowArrays) -> Evidence:
        evidence: Evidence = self._process.call("measure", window=frames.from_window(window))
        return evidence

    def update(self, step: int, round_: Mapping[str, Evidence]) -> Mapping[str, GroupVerdict]:
        return frames.to_verdicts(self._process.call("update", step=step, round_=round_))

    def rank(self, checkpoints: Sequence[Checkpoint], group: str | None) -> Sequence[RankedCheckpoint]:
        points = frames.from_checkpoints(checkpoints)
        return frames.to_ranking(self._process.call("rank", checkpoints=points, group=group))


class HostedPolicy:
    """A policy in a process of its own; raises HostedError where it gives no answer."""

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        self._process = _start(plugins.POLICIES, name, options)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def decide(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> Decision:
        plain = frames.from_verdicts(verdicts)
        return frames.to_decision(self._process.call("decide", step=step, verdicts=plain))


class HostedMetric:
    """A metric in a process of its own; raises HostedError where it gives no answer.

    As it remembers nothing, one that was cut off is started again, a few times.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = _start(plugins.METRICS, name, {})
        self._restarts = 0

    def __call__(
        self, window: WindowArrays, others: Sequence[WindowArrays], geometry: Geometry | None
    ) -> Mapping[str, float]:
        if self._process.ended and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            self._process = _start(plugins.METRICS, self._name, {})
        values = self._process.call(
            "compute",
            window=frames.from_window(window),
            others=[frames.from_window(other) for other in others],
            geometry=frames.from_geometry(geometry),
        )
        return {one_line(name): value for name, value in values.items()}

    def close(self) -> None:
        """End the process."""
        self._restarts = MAX_RESTARTS
        self._process.close()


def open_detector(name: str) -> Detector:
    """A fresh detector; empty name = the default. Raises PluginError."""
    name = name or plugins.DEFAULT_DETECTOR
    return plugins.load_detector(name) if plugins.is_ours(plugins.DETECTORS, name) else HostedDetector(name)


def open_policy(name: str, options: Mapping[str, str]) -> Policy:
    """A fresh policy with its options; empty name = the default. Raises PluginError."""
    name = name or plugins.DEFAULT_POLICY
    if plugins.is_ours(plugins.POLICIES, name):
        return plugins.load_policy(name, options)
    return HostedPolicy(name, options)


def open_metric(name: str) -> Metric:
    """A metric. Raises PluginError."""
    return plugins.load_metric(name) if plugins.is_ours(plugins.METRICS, name) else HostedMetric(name)


def is_hosted(*opened: object) -> bool:
    """Whether one of them lives in a process of its own."""
    return any(isinstance(plugin, _HOSTED) for plugin in opened)


def close(*opened: object) -> None:
    """End the processes of those that have one."""
    for plugin in opened:
        if isinstance(plugin, _HOSTED):
            plugin.close()


_HOSTED = (HostedDetector, HostedPolicy, HostedMetric)


def _start(kind: str, name: str, options: Mapping[str, str]) -> PluginProcess:
    plugins.check_installed(kind, name)
    try:
        return PluginProcess(kind, name, dict(options))
    except HostedError as error:
        raise plugins.PluginError(str(error)) from error
