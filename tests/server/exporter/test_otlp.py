"""Metrics pushed to a real receiver that decodes the protocol: what a scrape shows, whatever it does."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from opentelemetry.sdk.resources import Resource
from otlp_receiver import Labels, OtlpReceiver, Push
from ports import lasting_port
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig, check
from pathwatch.server.exporter.otlp_data import OtlpData
from pathwatch.v1 import run_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
EPOCH = 1_700_000_000 * 10**9
MOVING = (
    "process_",
    "python_",
    "pathwatch_state_age_seconds",
    "pathwatch_snapshot_age_seconds",
    "pathwatch_data_folder_",
    "pathwatch_database_bytes",
)
"""Beginnings of names whose values change while nothing happens."""


@pytest.fixture
def receiver(eventually: Any) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver
    # A push that was not waited for fails now; the next test is not to hear of it.
    eventually(lambda: not any(thread.name == "pathwatch-otlp" for thread in threading.enumerate()))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., BackgroundServer]]:
    """Starts a server that pushes every second; `stop` drains it."""
    with ExitStack() as servers:

        def start(url: str, seconds: float = 1) -> BackgroundServer:
            config = ServerConfig(data=tmp_path / "data", otlp_endpoint=url, otlp_interval_seconds=seconds)
            return servers.enter_context(BackgroundServer(config))

        start.stop = servers.close  # type: ignore[attr-defined]
        yield start


def feed(server: BackgroundServer, run: str = "run") -> None:
    """A run of three windows, to its end."""
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=(8, 2)).astype(np.float32)
    stream = RoutingStream(server.grpc_address, run=run, config=CONFIG)
    for step in range(3):
        for group in ("code", "math"):
            stream.observe(step=step, group=group, sample_ids=np.arange(8), weights=weights)
        stream.watermark(step)
    assert stream.flush(60)
    stream.close()
    with Client(server.grpc_address) as client:
        client.finish_run(run)


def scraped(server: BackgroundServer) -> dict[str, dict[Labels, float]]:
    """Values by name and labels, as a scrape shows them."""
    found: dict[str, dict[Labels, float]] = {}
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=30) as page:
        for family in text_string_to_metric_families(page.read().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def pushed(push: Push) -> dict[str, dict[Labels, float]]:
    """The same of a push."""
    found: dict[str, dict[Labels, float]] = {}
    for name, metric in push.metrics.items():
        for labels, point in push.points(name).items():
            if metric.WhichOneof("data") != "histogram":
                found.setdefault(name, {})[labels] = point.as_double
                continue
            bounds = [*map(str, point.explicit_bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(point.bucket_counts), strict=True):
                found.setdefault(f"{name}_bucket", {})[tuple(sorted((*labels, ("le", bound))))] = count
            found.setdefault(f"{name}_count", {})[labels] = point.count
            found.setdefault(f"{name}_sum", {})[labels] = point.sum
    return found


def resting(values: dict[str, dict[Labels, float]]) -> dict[str, dict[Labels, float]]:
    return {name: of_name for name, of_name in values.items() if not name.startswith(MOVING)}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Everything of ours and of the library that was said of pushes."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith(("pathwatch.server", "opentelemetry"))
    ]


@pytest.mark.slow
def test_what_is_pushed_is_what_a_scrape_shows(receiver: OtlpReceiver, serve: Any, eventually: Any) -> None:
    began = time.time_ns()
    server = serve(receiver.url)
    feed(server)
    eventually(lambda: receiver.pushes and resting(pushed(receiver.pushes[-1])) == resting(scraped(server)))
    push = receiver.pushes[-1]
    assert set(pushed(push)) == set(scraped(server))
    assert push.path == "/v1/metrics"
    assert push.resource["service.name"] == "pathwatch"
    assert push.resource["service.instance.id"].endswith(server.http_address.rpartition(":")[2])
    assert push.resource["service.version"]
    for name, metric in push.metrics.items():
        assert metric.description
        kind = metric.WhichOneof("data")
        assert kind == {True: "sum", False: kind}[name.endswith("_total")]
        for point in push.points(name).values():
            assert began <= point.time_unix_nano <= time.time_ns()
            if kind in ("sum", "histogram"):
                assert began <= point.start_time_unix_nano <= point.time_unix_nano
        if kind == "sum":
            assert metric.sum.is_monotonic
            assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    (close,) = push.points("pathwatch_window_close_seconds").values()
    assert (close.count, close.explicit_bounds[-1], close.HasField("max")) == (3, 30, False)


@pytest.mark.slow
def test_series_of_a_deleted_run_vanish(receiver: OtlpReceiver, serve: Any, eventually: Any) -> None:
    def runs() -> set[str]:
        """Runs that the newest push has series of."""
        newest = [of_name for push in receiver.pushes[-1:] for of_name in pushed(push).values()]
        labels = [labels for of_name in newest for labels in of_name]
        return {value for pairs in labels for name, value in pairs if name == "run"}

    server = serve(receiver.url)
    feed(server, "kept")
    feed(server, "gone")
    eventually(lambda: runs() == {"kept", "gone"})
    with Client(server.grpc_address) as client:
        client.delete_run("gone")
    eventually(lambda: runs() == {"kept"})


def test_the_last_push_has_all_that_came(receiver: OtlpReceiver, serve: Any, eventually: Any) -> None:
    server = serve(receiver.url, seconds=86400)
    eventually(lambda: receiver.pushes)
    feed(server)
    assert len(receiver.pushes) == 1
    serve.stop()
    assert len(receiver.pushes) == 2
    accepted = pushed(receiver.pushes[-1])["pathwatch_ingest_observations_total"]
    assert accepted[("result", "accepted"), ("run", "run")] == 48


def test_the_usual_environment_holds(
    receiver: OtlpReceiver, serve: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=mine,deployment=test")
    serve(f"{receiver.url}/by/hand")
    eventually(lambda: receiver.pushes)
    push = receiver.pushes[0]
    assert push.path == "/by/hand"
    assert (push.headers["x-tenant"], push.headers["content-encoding"]) == ("blue", "gzip")
    assert (push.resource["service.instance.id"], push.resource["deployment"]) == ("mine", "test")


@pytest.mark.slow
def test_a_receiver_that_is_down_is_said_once_and_used_when_it_is_back(
    serve: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    port = lasting_port()
    server = serve(f"http://127.0.0.1:{port}")
    feed(server)
    eventually(lambda: warnings(caplog))
    with OtlpReceiver(port) as receiver:
        eventually(lambda: receiver.pushes)
        eventually(lambda: len(warnings(caplog)) >= 2)
        serve.stop()
    first, second, *_ = warnings(caplog)  # where the machine is busy, a push may take longer than a second
    assert f"metrics cannot be pushed to http://127.0.0.1:{port}/v1/metrics: " in first
    assert "Connection refused" in first
    assert "again, after " in second


@pytest.mark.slow
def test_a_receiver_that_refuses_is_said_once(
    receiver: OtlpReceiver, serve: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "3600"}
    server = serve(receiver.url)
    eventually(lambda: len(receiver.pushes) >= 3)  # it was not waited for
    feed(server)
    (said,) = warnings(caplog)
    assert ": 503 Service Unavailable (" in said
    receiver.status = 200
    eventually(lambda: len(warnings(caplog)) == 2)
    failed = int(warnings(caplog)[1].split("after ")[1].split()[0])
    assert 3 <= failed < len(receiver.pushes)


@pytest.mark.slow
def test_of_a_push_that_was_tried_again_the_first_reason_is_said(
    serve: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's last attempt may have no time left, and its reason nothing to do with the collector."""
    reasons = chain([requests.ConnectionError("nobody listens")] * 2, repeat(ValueError("no time is left")))
    monkeypatch.setattr(requests.Session, "request", Mock(side_effect=reasons))
    serve("http://127.0.0.1:1")
    eventually(lambda: warnings(caplog))
    serve.stop()
    assert ": nobody listens (" in warnings(caplog)[0]


@pytest.mark.slow
def test_a_redirect_takes_no_metrics(
    receiver: OtlpReceiver, serve: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status, receiver.headers = 302, {"Location": "/login"}
    serve(receiver.url)
    eventually(lambda: len(receiver.pushes) >= 2)
    (said,) = warnings(caplog)
    assert ": 302 Found, to /login (" in said
    receiver.status, receiver.headers = 200, {}
    eventually(lambda: len(warnings(caplog)) == 2)


def test_the_library_has_its_say_again_once_nothing_is_pushed(
    receiver: OtlpReceiver, serve: Any, eventually: Any
) -> None:
    library = logging.getLogger(OTLPMetricExporter.__module__)
    before = list(library.filters)
    serve(receiver.url)
    eventually(lambda: receiver.pushes)
    assert library.filters != before
    serve.stop()
    assert library.filters == before


@pytest.mark.slow
def test_a_receiver_that_says_nothing_holds_up_nobody(
    receiver: OtlpReceiver,
    serve: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    receiver.silent = True
    server = serve(receiver.url)
    eventually(lambda: receiver.silenced)
    feed(server)
    assert scraped(server)["pathwatch_run_step"] == {(("run", "run"),): 2}
    serve.stop()  # does not wait for an hour
    assert receiver.pushes == []
    assert ["could not be pushed" in said for said in warnings(caplog)] == [True]


def test_a_counter_that_falls_counts_since_then() -> None:
    data = OtlpData(Resource({}), EPOCH)
    starts = []
    for seconds, values in enumerate([(5, 1), (7, 1), (2, 1), (3, 1)], start=1):
        family = CounterMetricFamily("served", "Calls.", labels=["run"])
        for run, value in zip("ab", values, strict=True):
            family.add_metric([run], value, created=0)
        converted = data.convert([family], EPOCH + seconds)
        (metric,) = converted.resource_metrics[0].scope_metrics[0].metrics
        starts.append([point.start_time_unix_nano - EPOCH for point in metric.data.data_points])
    assert starts == [[0, 0], [0, 0], [2, 0], [2, 0]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"otlp_endpoint": "collector:4318"}, "must be like http://collector:4318"),
        ({"otlp_endpoint": "ftp://collector"}, "must be like"),
        ({"otlp_endpoint": "http://"}, "must be like"),
        ({"otlp_endpoint": "http://collector:99999"}, "must be like"),
        ({"otlp_endpoint": "http://me:secret@collector"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"otlp_endpoint": "http://collector/?key=secret"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"otlp_interval_seconds": 0.5}, "otlp_interval_seconds: must be"),
        ({"otlp_interval_seconds": float("nan")}, "otlp_interval_seconds: must be"),
    ],
)
def test_what_cannot_be_pushed_to_is_said_at_the_start(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    (problem,) = check(ServerConfig(data=tmp_path, **fields))
    assert words in problem
    assert "secret" not in problem


def test_without_the_extra_it_is_said_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from pathwatch.server.cli.root import pathwatch\n"
        "pathwatch(['serve', '--data', sys.argv[1], '--check', '--otlp-endpoint', 'http://127.0.0.1:1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'pathwatch[otlp]'" in done.stderr
