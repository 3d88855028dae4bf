"""Who may call what, on which run: all methods, all scopes; refusals, revocation, and the audit log."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pathwatch.client import Credentials, RoutingStream
from pathwatch.server.access import audit, reloading
from pathwatch.server.api import methods
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc

# Written down once more, by hand, as the promise that docs/security.md makes: which scopes open what.
OPENS = {
    "/pathwatch.v1.RoutingService/StreamRouting": {"ingest"},
    "/pathwatch.v1.RunService/ValidateRun": {"ingest", "read"},
    "/pathwatch.v1.RunService/CreateRun": {"ingest"},
    "/pathwatch.v1.RunService/GetRun": {"ingest", "read"},
    "/pathwatch.v1.RunService/ListRuns": {"read"},
    "/pathwatch.v1.RunService/FinishRun": {"control"},
    "/pathwatch.v1.RunService/DeleteRun": {"control"},
    "/pathwatch.v1.RunService/RegisterCheckpoint": {"ingest"},
    "/pathwatch.v1.RunService/RankCheckpoints": {"ingest", "read"},
    "/pathwatch.v1.SignalService/GetSignal": {"ingest", "read"},
    "/pathwatch.v1.SignalService/WatchSignals": {"ingest", "read"},
    "/pathwatch.v1.SignalService/GetMetrics": {"read"},
    "/pathwatch.v1.SignalService/GetObservations": {"read"},
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {"read"},
    "/grpc.health.v1.Health/Check": None,
    "/grpc.health.v1.Health/List": None,
    "/grpc.health.v1.Health/Watch": None,
}
SCOPES = ("ingest", "read", "control")
LET_IN = (None, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
"""How calls with an empty request end that were let in."""


@dataclass
class Guarded:
    """A server with tokens that a test can change."""

    folder: Path
    grpc_address: str = ""
    http_address: str = ""
    channel: grpc.Channel = field(init=False)
    entries: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.log").read_text().splitlines()]

    def give(self, name: str, *scopes: str, **more: object) -> tuple[tuple[str, str], ...]:
        """A token whose secret is its name; the metadata that carries it."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.entries[name] = {"name": name, "sha256": digest, "scopes": list(scopes), **more}
        self.write(yaml.safe_dump(list(self.entries.values())))
        return (("authorization", f"Bearer {name}"),)

    def write(self, content: str) -> None:
        new = self.folder / "new.yaml"
        new.write_text(content)
        new.chmod(0o600)
        os.replace(new, self.folder / "tokens.yaml")

    def code(self, method: str, metadata: Any, request: bytes = b"") -> grpc.StatusCode | None:
        """How a call of any method ends; None = well, or it goes on."""
        stream = method.endswith(("StreamRouting", "ServerReflectionInfo"))
        answers = stream or method.endswith(("WatchSignals", "GetObservations", "Health/Watch"))
        kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
        call = getattr(self.channel, kind[stream, answers])(method)
        try:
            done = call(iter([request]) if stream else request, metadata=metadata, timeout=60)
            if answers:
                next(done)
                done.cancel()
        except StopIteration:
            return None
        except grpc.RpcError as error:
            return error.code()
        return None


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Guarded]]:
    """Starts a server whose tokens take effect at once."""
    monkeypatch.setattr(reloading, "CHECK_SECONDS", 0)
    with ExitStack() as closing:

        def start(**config: object) -> Guarded:
            guarded = Guarded(tmp_path)
            guarded.give("nobody", "read", runs=["of-nobody"])
            settings = {"tokens": tmp_path / "tokens.yaml", "audit_log": tmp_path / "audit.log"} | config
            running = ServerConfig(data=tmp_path / "data", drain_seconds=1, **settings)  # type: ignore[arg-type]
            server = closing.enter_context(BackgroundServer(running))
            guarded.grpc_address, guarded.http_address = server.grpc_address, server.http_address
            guarded.channel = closing.enter_context(grpc.insecure_channel(server.grpc_address))
            return guarded

        yield start


def test_every_method_of_every_service_has_a_rule(
    monkeypatch: pytest.MonkeyPatch, guarded: Callable[..., Guarded]
) -> None:
    """All that is registered with gRPC when the server is made, health and reflection included."""
    registered: set[str] = set()
    handlers: list[Any] = []
    make = grpc.aio.server

    def recording(**options: Any) -> grpc.aio.Server:
        server = make(**options)
        register, add = server.add_registered_method_handlers, server.add_generic_rpc_handlers

        def note(service: str, by_name: dict[str, Any]) -> None:
            registered.update(f"/{service}/{name}" for name in by_name)
            register(service, by_name)

        def count(generic: Any) -> None:
            handlers.extend(generic)
            add(generic)

        monkeypatch.setattr(server, "add_registered_method_handlers", note)
        monkeypatch.setattr(server, "add_generic_rpc_handlers", count)
        return server

    monkeypatch.setattr(grpc.aio, "server", recording)
    guarded()
    services = {method.split("/")[1] for method in registered}
    assert {handler.service_name() for handler in handlers} == services
    # What the protocol describes is registered, whole.
    for module in (routing_pb2, run_pb2, signal_pb2, health_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            assert {f"/{service.full_name}/{method.name}" for method in service.methods} <= registered
    assert registered == set(methods.RULES) == set(OPENS)


@pytest.mark.parametrize("token", [None, *SCOPES])
def test_what_each_scope_opens(guarded: Callable[..., Guarded], token: str | None) -> None:
    server = guarded()
    metadata = server.give("job", token) if token else ()
    for method, scopes in OPENS.items():
        code = server.code(method, metadata)
        if scopes is None or token in scopes:
            assert code in LET_IN, method
        elif token is None:
            assert code is grpc.StatusCode.UNAUTHENTICATED, method
        else:
            assert code is grpc.StatusCode.PERMISSION_DENIED, method


def test_several_scopes_open_what_each_does(guarded: Callable[..., Guarded]) -> None:
    server = guarded()
    metadata = server.give("ops", *SCOPES)
    assert all(server.code(method, metadata) in LET_IN for method in OPENS)


@pytest.mark.parametrize("tokens", [True, False])
def test_a_method_without_a_rule_is_closed(
    guarded: Callable[..., Guarded], monkeypatch: pytest.MonkeyPatch, tokens: bool
) -> None:
    """To everyone, tokens or none."""
    method = "/pathwatch.v1.RunService/GetRun"
    rules = dict(methods.RULES)
    del rules[method]
    monkeypatch.setattr("pathwatch.server.api.authorization.RULES", rules)
    server = guarded() if tokens else guarded(tokens=None)
    assert server.code(method, server.give("ops", *SCOPES)) is grpc.StatusCode.PERMISSION_DENIED
    assert server.audit[-1]["method"] == method


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Bearer wrong"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer"),),
        (("authorization", "Basic am9iOmpvYg=="),),
        (("authorization", "Basic job"),),
        (("authorization", "job"),),
        (("authorization", "Bearer job, Bearer job"),),
        (("authorization", "Bearer job"), ("authorization", "Bearer wrong")),
        (("authorization", "Bearer " + hashlib.sha256(b"job").hexdigest()),),
        (("x-authorization", "Bearer job"),),
        (("authorization-bin", b"Bearer job"),),
    ],
)
def test_what_is_no_token(guarded: Callable[..., Guarded], metadata: Any) -> None:
    server = guarded()
    given = server.give("job", *SCOPES)
    assert server.code("/pathwatch.v1.RunService/ListRuns", given) is None
    assert server.code("/pathwatch.v1.RunService/ListRuns", metadata) is grpc.StatusCode.UNAUTHENTICATED


def test_a_bound_token_opens_its_runs_and_learns_nothing_of_others(
    guarded: Callable[..., Guarded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "REFUSALS_PER_SECOND", 1000)
    server = guarded()
    ops = server.give("ops", *SCOPES)
    runs = run_pb2_grpc.RunServiceStub(server.channel)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    for name in ("abc-1", "secret"):
        runs.CreateRun(run_pb2.CreateRunRequest(name=name, config=config), metadata=ops)
    bound = server.give("bound", *SCOPES, runs=["abc-*"])
    listed = runs.ListRuns(run_pb2.ListRunsRequest(), metadata=bound)
    assert [run.name for run in listed.runs] == ["abc-1"]
    assert len(runs.ListRuns(run_pb2.ListRunsRequest(), metadata=ops).runs) == 2
    for method in OPENS:
        if not method.startswith("/pathwatch.v1.") or method.endswith("ListRuns"):
            continue
        # Of a run that is there and one that is not, the same is heard.
        said = {}
        for run in ("secret", "nosuch"):
            request = _about(method, run)
            assert server.code(method, bound, request) is grpc.StatusCode.PERMISSION_DENIED, method
            said[run] = server.audit[-1]
        assert {(e["outcome"], e["token"]) for e in said.values()} == {("PERMISSION_DENIED", "bound")}
        assert [entry["run"] for entry in said.values()] == ["secret", "nosuch"]
        if not method.endswith(("FinishRun", "DeleteRun")):
            assert server.code(method, bound, _about(method, "abc-1")) not in (
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNAUTHENTICATED,
            )
    assert len(runs.ListRuns(run_pb2.ListRunsRequest(), metadata=ops).runs) == 2


def _about(method: str, run: str) -> bytes:
    """A request that names a run. Fields 1 of all requests; in the stream, of the hello, field 2."""
    if method.endswith("StreamRouting"):
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="life")
        return routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString()
    return run_pb2.GetRunRequest(name=run).SerializeToString()


def test_the_messages_say_what_is_missing_and_no_secrets(guarded: Callable[..., Guarded]) -> None:
    server = guarded()
    runs = run_pb2_grpc.RunServiceStub(server.channel)
    job = server.give("job", "ingest", runs=["abc"])
    late = server.give("late", "read", expires="2026-01-01")
    asked = {
        "this server wants a bearer token with every call, none came": (runs.ListRuns, "", ()),
        "the bearer token is not known to this server": (
            *(runs.ListRuns, "", (("authorization", "Bearer pw_s3cret"),)),
        ),
        "token 'late' expired at 2026-01-01": (runs.ListRuns, "", late),
        "ListRuns needs the scope read; token 'job' has ingest": (runs.ListRuns, "", job),
        "token 'job' is not for run 'xyz'": (runs.GetRun, "xyz", job),
    }
    for says, (call, name, metadata) in asked.items():
        request = run_pb2.GetRunRequest(name=name) if name else run_pb2.ListRunsRequest()
        with pytest.raises(grpc.RpcError) as raised:
            call(request, metadata=metadata)
        assert says in str(raised.value.details())
        assert "s3cret" not in str(raised.value.details())


@pytest.mark.parametrize("how", ["removed", "expired", "rebound", "reduced"])
def test_a_token_that_is_withdrawn_ends_open_streams_too(
    guarded: Callable[..., Guarded], make_stream: Any, make_batch: Any, how: str
) -> None:
    server = guarded()
    ops, job = server.give("ops", *SCOPES), server.give("job", "ingest")
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    run_pb2_grpc.RunServiceStub(server.channel).CreateRun(
        run_pb2.CreateRunRequest(name="run", config=config), metadata=job
    )
    watch = signal_pb2_grpc.SignalServiceStub(server.channel).WatchSignals(
        signal_pb2.WatchSignalsRequest(run="run"), metadata=job, timeout=60
    )
    next(watch)
    stream = make_stream(server.channel, job)
    stream.hello()
    assert stream.await_ack(stream.send(make_batch(1))) == []
    server.give("other", "ingest")  # of no matter to this one
    assert stream.await_ack(stream.send(make_batch(2))) == []
    match how:
        case "removed":
            del server.entries["job"]
            server.give("other", "ingest")
        case "expired":
            server.give("job", "ingest", expires="2026-01-01")
        case "rebound":
            server.give("job", "ingest", runs=["other"])
        case "reduced":
            server.give("job", "control")
    expected = {
        "removed": grpc.StatusCode.UNAUTHENTICATED,
        "expired": grpc.StatusCode.UNAUTHENTICATED,
        "rebound": grpc.StatusCode.PERMISSION_DENIED,
        "reduced": grpc.StatusCode.PERMISSION_DENIED,
    }[how]
    stream.send(make_batch(3))
    assert stream.error().code() is expected
    # A watcher hears nothing more either: not of what happens next.
    run_pb2_grpc.RunServiceStub(server.channel).FinishRun(run_pb2.FinishRunRequest(name="run"), metadata=ops)
    with pytest.raises(grpc.RpcError) as raised:
        next(watch)
    assert raised.value.code() is expected
    # What was acknowledged before is there; what came after is not.
    counted = run_pb2_grpc.RunServiceStub(server.channel).GetRun(
        run_pb2.GetRunRequest(name="run"), metadata=ops
    )
    assert counted.run.step == 2


@pytest.mark.slow
def test_a_job_goes_on_with_the_token_that_replaced_its_own(guarded: Callable[..., Guarded]) -> None:
    """Its file changes, then the old token is withdrawn: nothing is lost, nobody restarts the job."""
    server = guarded()
    path = server.folder / "job.token"
    path.write_text("old")
    server.give("old", "ingest", runs=["run"])
    ops = server.give("ops", "read")
    stream = RoutingStream(
        server.grpc_address,
        run="run",
        config=run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)),
        credentials=Credentials(token_file=path),
        watch=True,
    )
    try:
        for step in range(1, 21):
            stream.observe(
                step=step, group="math", sample_ids=np.arange(8), weights=np.full((8, 2, 4), 0.25, np.float32)
            )
            stream.watermark(step)
            if step == 10:
                assert stream.flush(60)
                path.write_text("new")
                server.give("new", "ingest", runs=["run"])
                del server.entries["old"]
                server.give("ops", "read")
        assert stream.flush(60)
        assert "not known to this server" in (stream.stats.last_error or "")
        assert stream.stats.reconnects == 1
        assert stream.stats.dropped_steps == stream.stats.rejected == 0
    finally:
        stream.close()
    counted = run_pb2_grpc.RunServiceStub(server.channel).GetRun(
        run_pb2.GetRunRequest(name="run"), metadata=ops
    )
    assert counted.run.step == 20
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=60) as page:
        assert 'ingest_observations_total{run="run",result="accepted"} 160\n' in page.read().decode()


def test_a_broken_file_changes_nobodys_rights(guarded: Callable[..., Guarded]) -> None:
    server = guarded()
    job = server.give("job", "read")
    assert server.code("/pathwatch.v1.RunService/ListRuns", job) is None
    server.write("- name: [")
    assert server.code("/pathwatch.v1.RunService/ListRuns", job) is None
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=60) as page:
        text = page.read().decode()
    assert 'pathwatch_reload_failures_total{file="tokens"} 1.0' in text
    assert 'pathwatch_reload_failing{file="tokens"} 1.0' in text
    del server.entries["job"]
    server.give("other", "read")
    assert server.code("/pathwatch.v1.RunService/ListRuns", job) is grpc.StatusCode.UNAUTHENTICATED
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=60) as page:
        text = page.read().decode()
    assert 'pathwatch_reload_failing{file="tokens"} 0.0' in text
    assert 'pathwatch_refused_calls_total{listener="grpc",reason="unauthenticated"} 1.0' in text


def test_the_audit_log(guarded: Callable[..., Guarded], eventually: Callable[..., Any]) -> None:
    """Control calls and refusals, with their outcome; not the rest."""
    server = guarded()
    ops, job = server.give("ops", *SCOPES), server.give("job", "ingest", runs=["a*"])
    runs = run_pb2_grpc.RunServiceStub(server.channel)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    runs.CreateRun(run_pb2.CreateRunRequest(name="abc", config=config), metadata=job)
    runs.ListRuns(run_pb2.ListRunsRequest(), metadata=ops)
    assert server.audit == []
    service = "/pathwatch.v1.RunService"
    asked = [
        ("FinishRun", "abc", ops, "ops", "OK"),
        ("DeleteRun", "abc", job, "job", "PERMISSION_DENIED"),
        ("DeleteRun", "abc", (), None, "UNAUTHENTICATED"),
        ("DeleteRun", "abc", ops, "ops", "OK"),
        ("DeleteRun", "abc", ops, "ops", "NOT_FOUND"),
        ("GetRun", "xyz", job, "job", "PERMISSION_DENIED"),
    ]
    for count, (method, run, metadata, *_) in enumerate(asked, start=1):
        server.code(f"{service}/{method}", metadata, run_pb2.GetRunRequest(name=run).SerializeToString())
        eventually(lambda count=count: len(server.audit) == count)
    entries = server.audit
    assert [(e["method"], e["token"], e["outcome"]) for e in entries] == [
        (f"{service}/{method}", token, outcome) for method, _, _, token, outcome in asked
    ]
    # Of those who may not call the method, or are not known, the request is not even read.
    assert [entry["run"] for entry in entries] == ["abc", None, None, "abc", "abc", "xyz"]
    assert all(entry["peer"].startswith("ipv4:127.0.0.1:") for entry in entries)
    assert "Bearer" not in (server.folder / "audit.log").read_text()


def test_a_line_of_the_audit_log_is_not_as_long_as_the_caller_likes(
    guarded: Callable[..., Guarded], eventually: Callable[..., Any]
) -> None:
    server = guarded()
    job, ops = server.give("job", "ingest", runs=["abc"]), server.give("ops", "control")
    request = run_pb2.GetRunRequest(name="é" * 400_000).SerializeToString()
    for method, metadata, code in (
        ("GetRun", job, grpc.StatusCode.PERMISSION_DENIED),
        ("DeleteRun", ops, grpc.StatusCode.NOT_FOUND),
    ):
        assert server.code(f"/pathwatch.v1.RunService/{method}", metadata, request) is code
        eventually(lambda code=code: server.audit and server.audit[-1]["outcome"] == code.name)
        assert server.audit[-1]["run"].startswith("ééé")
    assert all(len(line) < 10_000 for line in (server.folder / "audit.log").read_text().splitlines())


def test_control_calls_that_fail_are_written_so_many_a_second(
    guarded: Callable[..., Guarded], eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = guarded()
    monkeypatch.setattr(audit, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(audit, "REFUSALS_PER_SECOND", 3)
    ops = server.give("ops", *SCOPES)
    runs = run_pb2_grpc.RunServiceStub(server.channel)
    for _ in range(10):
        with pytest.raises(grpc.RpcError):
            runs.DeleteRun(run_pb2.DeleteRunRequest(name="none"), metadata=ops)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    runs.CreateRun(run_pb2.CreateRunRequest(name="abc", config=config), metadata=ops)
    runs.DeleteRun(run_pb2.DeleteRunRequest(name="abc"), metadata=ops)
    eventually(lambda: server.audit[-1]["outcome"] == "OK")
    assert [entry["outcome"] for entry in server.audit] == ["NOT_FOUND"] * 3 + ["OK"]
    assert server.audit[-1]["suppressed"] == 7


def test_without_tokens_all_is_open_and_control_is_still_written_down(
    guarded: Callable[..., Guarded], eventually: Callable[..., Any]
) -> None:
    server = guarded(tokens=None)
    assert all(server.code(method, ()) in LET_IN for method in OPENS)
    eventually(lambda: len(server.audit) == 2)
    finish, delete = server.audit
    assert (finish["token"], finish["outcome"], delete["outcome"]) == (None, "NOT_FOUND", "NOT_FOUND")


def test_health_needs_no_token(guarded: Callable[..., Guarded]) -> None:
    answer = health_pb2_grpc.HealthStub(guarded().channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
