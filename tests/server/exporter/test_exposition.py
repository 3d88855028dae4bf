"""Both formats, judged by parsers that are not ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from run_views import Group, ShownEngine, health, run_view

from pathwatch.server.exporter.exposition import exposition
from pathwatch.server.exporter.state_collector import StateCollector
from pathwatch.server.phases.verdict import Phase

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""As Prometheus asks."""
TEXT = "text/plain;version=0.0.4"


def registry(groups: Iterable[str]) -> CollectorRegistry:
    """A run with these groups, an empty one, and a counter of prometheus_client's own."""
    run = run_view(
        "run",
        [
            Group(name=name, metrics={"path_distance": 1.5, "plugged_in": 1e-300}, layers=(1.0, 2.5), best=3)
            for name in groups
        ],
        best=3,
        health=health(observations={"accepted": 5, "late": 0}),
    )
    both = CollectorRegistry()
    engine: Any = ShownEngine(run, run_view("empty"))
    both.register(StateCollector(engine, series_groups=64, finished_series_seconds=3600.0))
    Counter("calls", "Calls.", ["kind"], registry=both).labels('a "quoted"\\kind\n').inc()
    return both


def found(families: Iterable[Metric]) -> dict[str, Any]:
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted((s.name, sorted(s.labels.items()), s.value) for s in family.samples),
        )
        for family in families
    }


@pytest.mark.parametrize(("accept", "parse"), [(TEXT, parse_text), (OPENMETRICS, parse_openmetrics)])
def test_it_says_what_prometheus_client_would_say(accept: str, parse: Any) -> None:
    """Which is given the same families, and writes samples where we write prepared lines."""
    both = registry(["math", "code"])
    content_type, body = exposition(both, accept)
    encode, expected_type = choose_encoder(accept)
    assert content_type == expected_type
    ours, theirs = found(parse(body.decode())), found(parse(encode(both).decode()))
    # When the counter was made is a sample of OpenMetrics.
    assert ours == theirs
    assert len(ours["pathwatch_group_phase"][2]) == 2 * len(Phase)
    assert body.endswith(b"# EOF\n") == (accept is OPENMETRICS)


@pytest.mark.slow
@given(st.lists(st.text(min_size=1, max_size=20), max_size=4, unique=True))
def test_any_name_of_a_group_comes_back_whole(names: list[str]) -> None:
    for accept, parse in ((TEXT, parse_text), (OPENMETRICS, parse_openmetrics)):
        text = exposition(registry(names), accept)[1].decode()
        (family,) = (one for one in parse(text) if one.name == "pathwatch_path_distance")
        assert sorted(sample.labels["group"] for sample in family.samples) == sorted(names)


def test_promtool_reads_difficult_names() -> None:
    groups = ['say "math"', "back\\slash", "two\nlines", "Ωμέγα 数学 🧮", "}{,="]
    text = exposition(registry(groups), TEXT)[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
