"""A live scrape of a server that a recorded run is played to."""

from __future__ import annotations

import gzip
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pathwatch.server.app import BackgroundServer

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
"""As Prometheus 2.53 asks."""
PASSING = ("python_", "process_", "pathwatch_state_age", "pathwatch_data_folder", "pathwatch_snapshot")
"""Families whose values pass with time."""


def get(server: BackgroundServer, **headers: str) -> tuple[Mapping[str, str], bytes]:
    request = urllib.request.Request(f"http://{server.http_address}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return response.headers, response.read()


def values(families: list[Metric]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, str(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.startswith((*PASSING, "grpc_")) and not sample.name.endswith("_created")
    }


def test_promtool_finds_nothing_to_complain_about(replayed: BackgroundServer) -> None:
    _, text = get(replayed)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_openmetrics_is_spoken_where_it_is_asked_for(replayed: BackgroundServer) -> None:
    headers, text = get(replayed)
    assert headers["Content-Type"].startswith("text/plain; version=")
    open_headers, open_text = get(replayed, Accept=OPENMETRICS)
    assert open_headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "Accept" in open_headers["Vary"]
    families = list(parse_openmetrics(open_text.decode()))
    assert values(families) == values(list(parse_text(text.decode())))
    types = {family.name: family.type for family in families}
    assert types["pathwatch_run"] == "info"
    assert types["pathwatch_phase_changes"] == "counter"
    assert types["pathwatch_window_close_seconds"] == "histogram"


def test_gzip_is_sent_where_it_is_asked_for(replayed: BackgroundServer) -> None:
    headers, body = get(replayed, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert int(headers["Content-Length"]) == len(body)
    assert b'pathwatch_run_step{run="pair"}' in gzip.decompress(body)
    assert "Content-Encoding" not in get(replayed)[0]


def test_only_reading_is_possible(replayed: BackgroundServer) -> None:
    request = urllib.request.Request(f"http://{replayed.http_address}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    assert (error.value.code, error.value.headers["Allow"]) == (405, "GET")
