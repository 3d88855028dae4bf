"""Metrics, detectors and policies by name: the entry points of all installed packages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from pathwatch.server.metrics.plugin import Metric
from pathwatch.server.phases.verdict import Detector, Policy

DEFAULT_DETECTOR = "pathway-drop"
DEFAULT_POLICY = "all-groups"

OWN_DISTRIBUTION = "pathwatch"

METRICS = "pathwatch.metrics"
DETECTORS = "pathwatch.detectors"
POLICIES = "pathwatch.policies"


class PluginError(ValueError):
    """A plug-in is not installed, cannot be loaded or refuses its options."""


def available(kind: str) -> list[str]:
    """Names installed for an entry-point group, sorted."""
    return sorted(_entry_points(kind))


def is_ours(kind: str, name: str) -> bool:
    """Whether pathwatch itself brings the plug-in."""
    point = _entry_points(kind).get(name)
    return point is not None and point.dist is not None and point.dist.name == OWN_DISTRIBUTION


def is_installed(kind: str, name: str) -> bool:
    """Whether a package brings the plug-in."""
    return name in _entry_points(kind)


def check_installed(kind: str, name: str) -> None:
    """Raises PluginError for a name that no installed package brings."""
    if not is_installed(kind, name):
        known = ", ".join(available(kind)) or "none"
        raise PluginError(f"{name!r} is not an installed {kind} plug-in; installed: {known}")


def load_metric(name: str) -> Metric:
    """A metric: the entry point itself if it is a function, an instance if it is a class."""
    loaded = _load(METRICS, name)
    metric: Metric = _construct(METRICS, name, {}) if isinstance(loaded, type) else loaded
    return metric


def load_detector(name: str) -> Detector:
    """A fresh detector; empty name = the default."""
    detector: Detector = _construct(DETECTORS, name or DEFAULT_DETECTOR, {})
    return detector


def load_policy(name: str, options: Mapping[str, str]) -> Policy:
    """A fresh policy with its options; empty name = the default."""
    policy: Policy = _construct(POLICIES, name or DEFAULT_POLICY, options)
    return policy


def look_again() -> None:
    """Forget what was installed: the packages are looked through once, which takes long."""
    _installed.cache_clear()


def _entry_points(kind: str) -> Mapping[str, EntryPoint]:
    return _installed(kind, tuple(sys.path))


@lru_cache(maxsize=16)
def _installed(kind: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=kind)}


def _load(kind: str, name: str):  # type: ignore[no-untyped-def]  # what an entry point names can be anything
    check_installed(kind, name)
    point = _entry_points(kind)[name]
    try:
        return point.load()
    except Exception as error:  # a plug-in may fail in any way; the server must not
        raise PluginError(f"{name!r} ({point.value}) cannot be loaded: {error!r}") from error


def _construct(kind: str, name: str, options: Mapping[str, str]):  # type: ignore[no-untyped-def]
    factory = _load(kind, name)
    try:
        return factory(**options)
    except Exception as error:
        raise PluginError(f"{name!r}: {error}") from error
