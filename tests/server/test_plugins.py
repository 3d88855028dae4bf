"""Plug-ins are found by name, and every way they can be wrong has a clear word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathwatch.server import plugins

CODE = """
class Policy:
    def __init__(self, level="1"):
        self.level = int(level)
    def decide(self, step, verdicts):
        raise NotImplementedError

class Metric:
    def __call__(self, window, others, geometry):
        return {"three": 3.0}

def metric(window, others, geometry):
    return {"four": 4.0}
"""
ENTRY_POINTS = """
[pathwatch.metrics]
from-class = own_plugins:Metric
from-function = own_plugins:metric
absent = own_plugins:nothing

[pathwatch.policies]
own = own_plugins:Policy
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip leaves it behind."""
    (tmp_path / "own_plugins.py").write_text(CODE)
    info = tmp_path / "own_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_those_that_come_along_and_those_installed() -> None:
    assert {"all-groups", "patience", "quorum", "own"} <= set(plugins.available(plugins.POLICIES))
    assert "pathway-drop" in plugins.available(plugins.DETECTORS)


def test_an_empty_name_is_the_default() -> None:
    assert type(plugins.load_detector("")) is type(plugins.load_detector(plugins.DEFAULT_DETECTOR))
    assert type(plugins.load_policy("", {})) is type(plugins.load_policy(plugins.DEFAULT_POLICY, {}))


def test_every_load_is_fresh() -> None:
    assert plugins.load_detector("") is not plugins.load_detector("")


def test_metrics_are_functions_or_classes() -> None:
    values = [plugins.load_metric(name)(None, [], None) for name in ("from-class", "from-function")]  # type: ignore[arg-type]
    assert values == [{"three": 3.0}, {"four": 4.0}]


def test_options_reach_the_policy() -> None:
    assert plugins.load_policy("own", {"level": "7"}).level == 7  # type: ignore[attr-defined]


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(plugins.PluginError, match=r"'nonesuch' is not .*; installed: .*all-groups.*own"):
        plugins.load_policy("nonesuch", {})


@pytest.mark.parametrize(("options", "words"), [({"level": "high"}, "high"), ({"lvl": "1"}, "lvl")])
def test_wrong_options_are_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(plugins.PluginError, match=words):
        plugins.load_policy("own", options)


def test_one_that_cannot_be_loaded() -> None:
    with pytest.raises(plugins.PluginError, match=r"own_plugins:nothing\) cannot be loaded"):
        plugins.load_metric("absent")
