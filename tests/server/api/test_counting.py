"""Calls and messages as a scrape counts them, against what real clients did."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from pathwatch.server.api.methods import RULES
from pathwatch.server.config import Limits
from pathwatch.v1 import run_pb2, signal_pb2

Code = grpc.StatusCode
RUNS = ("unary", "pathwatch.v1.RunService")
ROUTING = ("bidi_stream", "pathwatch.v1.RoutingService", "StreamRouting")
WATCH = ("server_stream", "pathwatch.v1.SignalService", "WatchSignals")
UNKNOWN = ("unknown", "unknown", "unknown")
KINDS = {"unary", "server_stream", "bidi_stream", "unknown"}


@pytest.fixture
def value() -> Callable[..., float | None]:
    """A sample of a scrape; None where there is none."""

    def read(service: Any, name: str, labels: tuple[str, ...], **more: str) -> float | None:
        wanted = dict(zip(("grpc_type", "grpc_service", "grpc_method"), labels, strict=True)) | more
        with urllib.request.urlopen(f"http://{service.http_address}/metrics", timeout=30) as page:
            families = text_string_to_metric_families(page.read().decode())
            return next(
                (s.value for f in families for s in f.samples if (s.name, s.labels) == (name, wanted)), None
            )

    return read


def test_calls_of_one_answer(service: Any, value: Any, eventually: Any) -> None:
    service.create()
    request = run_pb2.GetRunRequest(name="run")
    answers = [service.runs.GetRun(request, timeout=30) for _ in range(3)]
    with pytest.raises(grpc.RpcError):
        service.get("none")
    of = (*RUNS, "GetRun")
    eventually(lambda: value(service, "grpc_server_handled_total", of, grpc_code="OK") == 3)
    eventually(lambda: value(service, "grpc_server_handled_total", of, grpc_code="NOT_FOUND") == 1)
    assert value(service, "grpc_server_started_total", of) == 4
    assert value(service, "grpc_server_in_flight", of) == 0
    assert value(service, "grpc_server_handling_seconds_count", of) == 4
    assert 0 < value(service, "grpc_server_handling_seconds_sum", of) < 60
    assert value(service, "grpc_server_msg_received_total", of) == 4
    assert value(service, "grpc_server_msg_sent_total", of) == 3
    received = 3 * request.ByteSize() + run_pb2.GetRunRequest(name="none").ByteSize()
    assert value(service, "grpc_server_msg_received_bytes_total", of) == received
    assert value(service, "grpc_server_msg_sent_bytes_total", of) == sum(a.ByteSize() for a in answers)


def test_a_stream_counts_while_it_is_open(service: Any, value: Any, make_batch: Any, eventually: Any) -> None:
    service.create()
    stream = service.stream()
    stream.hello()
    last = [stream.send(make_batch(step)) for step in range(5)][-1]
    stream.await_ack(last)
    assert value(service, "grpc_server_in_flight", ROUTING) == 1
    assert value(service, "grpc_server_started_total", ROUTING) == 1
    assert value(service, "grpc_server_handled_total", ROUTING, grpc_code="OK") == 0
    assert value(service, "grpc_server_msg_received_total", ROUTING) == 6
    assert value(service, "grpc_server_msg_received_bytes_total", ROUTING) > sum(
        make_batch(step).ByteSize() for step in range(5)
    )
    stream.finish()
    eventually(lambda: value(service, "grpc_server_handled_total", ROUTING, grpc_code="OK") == 1)
    assert value(service, "grpc_server_in_flight", ROUTING) == 0
    sent = value(service, "grpc_server_msg_sent_total", ROUTING)
    assert sent == len(stream.responses)
    assert value(service, "grpc_server_msg_sent_bytes_total", ROUTING) == sum(
        response.ByteSize() for response in stream.responses
    )


def test_calls_that_end_badly(service: Any, value: Any, eventually: Any) -> None:
    def ended(labels: tuple[str, ...], code: str) -> None:
        eventually(lambda: value(service, "grpc_server_handled_total", labels, grpc_code=code) == 1)
        eventually(lambda: value(service, "grpc_server_in_flight", labels) == 0)

    service.create()
    stream = service.stream()
    stream.hello("nobody")
    assert stream.error().code() is Code.NOT_FOUND
    ended(ROUTING, "NOT_FOUND")

    watch = service.signals.WatchSignals(signal_pb2.WatchSignalsRequest(run="run"))
    next(watch)
    assert value(service, "grpc_server_in_flight", WATCH) == 1
    watch.cancel()
    ended(WATCH, "CANCELLED")


def test_a_deadline_that_passes_is_no_cancellation(service: Any, value: Any, eventually: Any) -> None:
    service.create()
    request = signal_pb2.WatchSignalsRequest(run="run")

    def is_counted() -> bool:
        """On a busy machine the caller may hang up long before the server's clock says so."""
        watch = service.signals.WatchSignals(request, timeout=0.5)
        with pytest.raises(grpc.RpcError) as error:
            list(watch)
        assert error.value.code() is Code.DEADLINE_EXCEEDED
        eventually(lambda: value(service, "grpc_server_in_flight", WATCH) == 0)
        return bool(value(service, "grpc_server_handled_total", WATCH, grpc_code="DEADLINE_EXCEEDED"))

    eventually(is_counted)


def test_unknown_methods_share_their_series(service: Any, value: Any) -> None:
    for path in ("/pathwatch.v1.RunService/Guess", "/a.B/C", "/a.B/D"):
        with pytest.raises(grpc.RpcError) as error:
            service.channel.unary_unary(path)(b"", timeout=30)
        assert error.value.code() is Code.UNIMPLEMENTED
    assert value(service, "grpc_server_handled_total", UNKNOWN, grpc_code="UNIMPLEMENTED") == 3
    assert value(service, "grpc_server_started_total", UNKNOWN) == 3
    assert value(service, "grpc_server_in_flight", UNKNOWN) == 0


def test_what_other_interceptors_refuse_counts(
    serve: Any, value: Any, eventually: Any, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.yaml"
    digest = hashlib.sha256(b"a").hexdigest()
    tokens.write_text(f"- {{name: a, sha256: '{digest}', scopes: [read, ingest]}}\n")
    tokens.chmod(0o600)
    service = serve(Limits(watchers=1), tokens=tokens)
    holder = (("authorization", "Bearer a"),)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    service.runs.CreateRun(run_pb2.CreateRunRequest(name="run", config=config), metadata=holder)
    with pytest.raises(grpc.RpcError):
        service.get()
    handled = "grpc_server_handled_total"
    eventually(lambda: value(service, handled, (*RUNS, "GetRun"), grpc_code="UNAUTHENTICATED") == 1)
    assert value(service, "grpc_server_msg_received_total", (*RUNS, "GetRun")) in (0, 1)

    request = signal_pb2.WatchSignalsRequest(run="run")
    first = service.signals.WatchSignals(request, metadata=holder)
    next(first)
    with pytest.raises(grpc.RpcError):
        next(service.signals.WatchSignals(request, metadata=holder))
    eventually(lambda: value(service, handled, WATCH, grpc_code="RESOURCE_EXHAUSTED") == 1)
    assert value(service, "grpc_server_in_flight", WATCH) == 1
    first.cancel()


def test_health_counts(service: Any, value: Any, eventually: Any) -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=30)
    with pytest.raises(grpc.RpcError):
        health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=30)
    watch = health.Watch(health_pb2.HealthCheckRequest())
    next(watch)
    check = ("unary", "grpc.health.v1.Health", "Check")
    eventually(lambda: value(service, "grpc_server_handled_total", check, grpc_code="NOT_FOUND") == 1)
    eventually(lambda: value(service, "grpc_server_handled_total", check, grpc_code="OK") == 1)
    of_watch = ("server_stream", "grpc.health.v1.Health", "Watch")
    assert value(service, "grpc_server_in_flight", of_watch) == 1
    eventually(lambda: value(service, "grpc_server_msg_sent_total", of_watch) == 1)
    watch.cancel()


def test_every_method_has_series_of_its_own_from_the_start(service: Any) -> None:
    with urllib.request.urlopen(f"http://{service.http_address}/metrics", timeout=30) as page:
        families = {f.name: f for f in text_string_to_metric_families(page.read().decode())}
    labels = [sample.labels for sample in families["grpc_server_started"].samples]
    paths = {f"/{of['grpc_service']}/{of['grpc_method']}" for of in labels}
    assert paths == {*RULES, "/unknown/unknown"}
    assert {of["grpc_type"] for of in labels} == KINDS
    assert len(labels) == len(paths)
