"""The configuration of a run: defaults, problems, and the settings other rooms take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pathwatch.server import plugins
from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import MAX_STEP
from pathwatch.server.engine.decode import group_problem
from pathwatch.server.engine.hosting.hosted import close, open_detector, open_metric, open_policy
from pathwatch.server.engine.refusal import LimitError, one_line
from pathwatch.server.sketch.run_sketch import SketchSettings
from pathwatch.v1 import run_pb2

if TYPE_CHECKING:
    from pathwatch.server.metrics.summary import MetricSettings

DEFAULT_CAPACITY = 512
DEFAULT_GRACE_SECONDS = 60.0
DEFAULT_THRESHOLDS = (0.7, 0.5, 0.6, 0.8)
DEFAULT_DELTA = 0.05
DEFAULT_RIDGE = 0.01
DEFAULT_MAX_PAIRS = 8192
MAX_PAIRS = 1 << 20
MAX_THRESHOLDS = 8
MAX_METRICS = 32
MAX_POLICY_OPTIONS = 32
MAX_OPTION = 1000
"""Characters of a policy option."""
MAX_GRACE_SECONDS = 30 * 86400.0

MAX_PLUGIN_NAME = 128

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def with_defaults(config: run_pb2.RunConfig) -> run_pb2.RunConfig:
    """A copy in which nothing that has a default is left open."""
    full = run_pb2.RunConfig()
    full.CopyFrom(config)
    full.mode = config.mode or run_pb2.OBSERVATION_MODE_PROBE
    full.capacity = config.capacity or DEFAULT_CAPACITY
    full.grace_seconds = config.grace_seconds or DEFAULT_GRACE_SECONDS
    if not config.thresholds:
        full.thresholds.extend(DEFAULT_THRESHOLDS)
    full.delta = config.delta or DEFAULT_DELTA
    full.ridge = config.ridge or DEFAULT_RIDGE
    full.detector = config.detector or plugins.DEFAULT_DETECTOR
    full.policy = config.policy or plugins.DEFAULT_POLICY
    full.stop_margin_steps = config.stop_margin_steps or 1
    return full


def violations(name: str, config: run_pb2.RunConfig, limits: Limits) -> list[run_pb2.Violation]:
    """Problems of a run's name and configuration, each with its field; of plug-ins: `plugin_violations`."""
    return _violations(
        *_name_problems(name, limits.name_length),
        *_shape_problems(config, limits),
        *_room_problems(config, limits),
        *_number_problems(config),
        *_group_problems(config, limits),
        *_amount_problems(config),
    )


def check_limits(config: run_pb2.RunConfig, limits: Limits) -> None:
    """Raise LimitError where a configuration with defaults filled in asks for more than is given."""
    shape = config.topology
    for limit, field, value in (
        ("layers", "config.topology.layers", shape.layers),
        ("experts", "config.topology.experts", shape.experts),
        ("capacity", "config.capacity", config.capacity),
        ("groups_per_run", "config.groups", len(config.groups)),
    ):
        most = getattr(limits, limit)
        if value > most:
            raise LimitError(limit, f"is {value}; this server takes at most {most}", field)
    for field, message in _room_problems(config, limits):
        raise LimitError("window_bytes_per_run", message, field)


def hosts_nothing(config: run_pb2.RunConfig) -> bool:
    """Whether all plug-ins that a configuration names, if they exist, are our own."""
    detector, policy = config.detector or plugins.DEFAULT_DETECTOR, config.policy or plugins.DEFAULT_POLICY
    named = [(plugins.DETECTORS, detector), (plugins.POLICIES, policy)]
    named += [(plugins.METRICS, name) for name in config.metrics[:MAX_METRICS]]
    return all(plugins.is_ours(kind, name) or not plugins.is_installed(kind, name) for kind, name in named)


def plugin_violations(config: run_pb2.RunConfig) -> list[run_pb2.Violation]:
    """Problems of a configuration's plug-ins, which are loaded to find out.

    That takes up to half a minute for each that hangs: not for the event loop, nor for the writer thread.
    """
    return _violations(*_plugin_problems(config))


def _violations(*found: tuple[str, str]) -> list[run_pb2.Violation]:
    return [run_pb2.Violation(field=field, message=one_line(message)) for field, message in found]


def sketch_settings(name: str, config: run_pb2.RunConfig) -> SketchSettings:
    """Settings of the run's sketch, from a configuration with defaults filled in."""
    stream = config.mode == run_pb2.OBSERVATION_MODE_STREAM
    return SketchSettings(
        run=name,
        layers=config.topology.layers,
        experts=config.topology.experts,
        mode="stream" if stream else "probe",
        window_steps=config.window_steps if stream else 1,
        capacity=config.capacity,
        grace_seconds=config.grace_seconds,
    )


def metric_settings(config: run_pb2.RunConfig) -> MetricSettings:
    """Settings of the run's metrics, from a configuration with defaults filled in."""
    from pathwatch.server.metrics.summary import MetricSettings

    return MetricSettings(
        thresholds=tuple(config.thresholds),
        ridge=config.ridge,
        per_layer=config.per_layer,
        # Runs that were created before this could be asked for are stored without it.
        max_pairs=config.max_pairs or DEFAULT_MAX_PAIRS,
    )


def _name_problems(name: str, most: int) -> Iterator[tuple[str, str]]:
    if len(name) > most or not _NAME.fullmatch(name):
        yield "name", f"{name!r} must be 1 to {most} characters of A-Z a-z 0-9 . _ -"


def _shape_problems(config: run_pb2.RunConfig, limits: Limits) -> Iterator[tuple[str, str]]:
    for letter, field, value, most in (
        ("L", "layers", config.topology.layers, limits.layers),
        ("K", "experts", config.topology.experts, limits.experts),
    ):
        if not 1 <= value <= most:
            yield f"config.topology.{field}", f"{letter} is {value}; it must be from 1 to {most}"
    if config.mode not in run_pb2.ObservationMode.values():
        yield "config.mode", f"{config.mode} is unknown; use probe or stream"
    elif config.mode == run_pb2.OBSERVATION_MODE_STREAM:
        if config.window_steps == 0:
            yield "config.window_steps", "is required in stream mode: steps per window"
    elif config.window_steps:
        yield "config.window_steps", "goes with stream mode only; in probe mode every step is a window"
    if config.capacity > limits.capacity:
        yield "config.capacity", f"is {config.capacity}; at most {limits.capacity} observations are kept"


def _room_problems(config: run_pb2.RunConfig, limits: Limits) -> Iterator[tuple[str, str]]:
    shape, capacity = config.topology, config.capacity or DEFAULT_CAPACITY
    if shape.layers > limits.layers or shape.experts > limits.experts or capacity > limits.capacity:
        return
    taken = capacity * shape.layers * shape.experts * np.dtype(np.float32).itemsize
    if taken > limits.window_bytes_per_run:
        yield (
            "config.capacity",
            f"{capacity} observations of {shape.layers} layers and {shape.experts} experts take {taken} "
            f"bytes in one window of one group; this server keeps {limits.window_bytes_per_run} of a run",
        )


def _number_problems(config: run_pb2.RunConfig) -> Iterator[tuple[str, str]]:
    for field, value in (
        ("grace_seconds", config.grace_seconds),
        ("delta", config.delta),
        ("ridge", config.ridge),
    ):
        if not (math.isfinite(value) and value >= 0):
            yield f"config.{field}", f"is {value}; it must be a finite number, 0 or more"
    if MAX_GRACE_SECONDS < config.grace_seconds < math.inf:
        yield "config.grace_seconds", f"is {config.grace_seconds:g}; at most 30 days, {MAX_GRACE_SECONDS:.0f}"
    for field, steps in (
        ("window_steps", config.window_steps),
        ("stop_margin_steps", config.stop_margin_steps),
    ):
        if steps > MAX_STEP:
            yield f"config.{field}", f"is {steps}; steps stay below 2^53"
    if config.max_pairs > MAX_PAIRS:
        yield "config.max_pairs", f"is {config.max_pairs}; a mean distance compares at most {MAX_PAIRS} pairs"
    if len(config.thresholds) > MAX_THRESHOLDS:
        yield "config.thresholds", f"has {len(config.thresholds)} values; at most {MAX_THRESHOLDS}"
    for i, threshold in enumerate(config.thresholds[:MAX_THRESHOLDS]):
        if not 0 < threshold < 1:
            yield f"config.thresholds[{i}]", f"is {threshold}; it must be between 0 and 1"
        elif threshold in config.thresholds[:i]:
            yield f"config.thresholds[{i}]", f"{threshold} is given twice"


def _group_problems(config: run_pb2.RunConfig, limits: Limits) -> Iterator[tuple[str, str]]:
    if len(config.groups) > limits.groups_per_run:
        yield "config.groups", f"has {len(config.groups)} groups; at most {limits.groups_per_run}"
    seen: set[str] = set()
    for i, settings in enumerate(config.groups[: limits.groups_per_run]):
        if problem := group_problem(settings.group, limits.name_length):
            yield f"config.groups[{i}].group", problem
        elif settings.group in seen:
            yield f"config.groups[{i}].group", f"{settings.group!r} is given twice"
        seen.add(settings.group)
        if not (math.isfinite(settings.epsilon) and settings.epsilon >= 0):
            yield f"config.groups[{i}].epsilon", f"is {settings.epsilon}; it must be a loss, or 0 for auto"


def _amount_problems(config: run_pb2.RunConfig) -> Iterator[tuple[str, str]]:
    if len(config.metrics) > MAX_METRICS:
        yield "config.metrics", f"has {len(config.metrics)} names; at most {MAX_METRICS}"
    names = [("detector", config.detector), ("policy", config.policy)]
    names += [(f"metrics[{i}]", name) for i, name in enumerate(config.metrics[:MAX_METRICS])]
    for field, name in names:
        if len(name) > MAX_PLUGIN_NAME:
            most = f"plug-ins have names of at most {MAX_PLUGIN_NAME}"
            yield f"config.{field}", f"has {len(name)} characters; {most}"
    options = config.policy_options
    if len(options) > MAX_POLICY_OPTIONS or any(len(o) > MAX_OPTION for kv in options.items() for o in kv):
        yield (
            "config.policy_options",
            f"has {len(options)} options; at most {MAX_POLICY_OPTIONS}, of {MAX_OPTION} characters each",
        )


def _plugin_problems(config: run_pb2.RunConfig) -> Iterator[tuple[str, str]]:
    try:
        close(open_detector(config.detector))
    except plugins.PluginError as error:
        yield "config.detector", str(error)
    try:
        close(open_policy(config.policy, config.policy_options))
    except plugins.PluginError as error:
        known = (config.policy or plugins.DEFAULT_POLICY) in plugins.available(plugins.POLICIES)
        yield "config.policy_options" if known else "config.policy", str(error)
    for i, name in enumerate(config.metrics[:MAX_METRICS]):
        try:
            close(open_metric(name))
        except plugins.PluginError as error:
            yield f"config.metrics[{i}]", str(error)
