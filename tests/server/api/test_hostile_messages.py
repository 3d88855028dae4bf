"""Thousands of messages that no client of ours sends, to a real server, beside a good neighbour.

No crash, no memory beyond bounds, nothing stored of what is refused, and the neighbour goes on.
"""

from __future__ import annotations

import contextlib
import queue
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fuzz_targets import EXPERTS, LAYERS
from hostile_messages import damaged, is_valid, refusable
from server_process import ServerProcess

from pathwatch.client import Client, RoutingStream
from pathwatch.client.tensors import from_tensor
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

Code = grpc.StatusCode
METHOD = "/pathwatch.v1.RoutingService/StreamRouting"
MEMORY_BYTES = 200 << 20
"""What the server may grow by: the largest messages sent are 8 MB."""
REFUSALS = {
    code.value[0] for code in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED)
}
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS))


class RawStream:
    """One call of StreamRouting that sends bytes, one message at a time."""

    def __init__(self, channel: grpc.Channel, hello: routing_pb2.StreamHello) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stub = channel.stream_stream(
            METHOD, response_deserializer=routing_pb2.StreamRoutingResponse.FromString
        )
        self.call = stub(iter(self._requests.get, None), timeout=120)
        self._requests.put(routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString())
        next(self.call)  # the hello is answered

    def exchange(self, data: bytes) -> routing_pb2.StreamRoutingResponse | grpc.RpcError:
        """The answer to a message; the error where the stream ends over it."""
        self._requests.put(data)
        try:
            return next(self.call)
        except grpc.RpcError as error:
            return error

    def end(self) -> None:
        self._requests.put(None)
        with contextlib.suppress(grpc.RpcError):
            list(self.call)


class Server:
    """A server process, its database and its memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = ServerProcess(folder)
        self.channel = grpc.insecure_channel(
            self.process.address, options=[("grpc.max_send_message_length", -1)]
        )

    def stream(self, session: str, run: str = "hostile", **fields: Any) -> RawStream:
        known = {"run": run, "world_size": 1, "session": session}
        return RawStream(self.channel, routing_pb2.StreamHello(**(known | fields)))

    def content(self, run: str = "hostile") -> dict[str, list[Any]]:
        """All rows of a run, but for how far sessions have come: a refused message is known to be."""
        with contextlib.closing(sqlite3.connect(self.folder / "pathwatch.sqlite3")) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            rows = {}
            for name in names:
                if name == "sessions":
                    continue
                columns = [column[1] for column in db.execute(f"PRAGMA table_info({name})")]
                key = "name" if name == "runs" else "run"
                if key in columns:
                    rows[name] = sorted(db.execute(f"SELECT * FROM {name} WHERE {key}=?", (run,)), key=repr)  # noqa: S608
        return rows

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Most memory resident since the last reset, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data")
    runs = run_pb2.CreateRunRequest(name="hostile", config=CONFIG)
    create = server.channel.unary_unary("/pathwatch.v1.RunService/CreateRun")
    create(runs.SerializeToString(), timeout=60)
    yield server
    server.channel.close()
    server.process.kill()


class Neighbour:
    """A good run on the same server: a step at a time, each waited for."""

    def __init__(self, address: str) -> None:
        self.steps = 0
        self.failure: str | None = None
        self._stop = threading.Event()
        self._stream = RoutingStream(address, run="good", config=CONFIG)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        weights = np.full((8, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
        while not self._stop.wait(0.02):
            self._stream.observe(
                step=self.steps,
                group="math",
                sample_ids=np.arange(8),
                weights=weights,
                losses=np.ones(8, np.float32),
            )
            self._stream.watermark(self.steps)
            if not self._stream.flush(60):
                self.failure = f"step {self.steps} is not acknowledged: {self._stream.stats}"
                return
            self.steps += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        stats = self._stream.stats
        self._stream.close()
        assert self.failure is None, self.failure
        assert (stats.rejected, stats.dropped_steps, stats.reconnects) == (0, 0, 0)


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        pytest.param(1000, 1, marks=pytest.mark.slow, id="1000"),
        pytest.param(12_000, 2, marks=[pytest.mark.robustness, pytest.mark.timeout(900)], id="12000"),
    ],
)
def test_hostile_messages(
    server: Server, capfd: pytest.CaptureFixture[str], eventually: Any, count: int, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311
    neighbour = Neighbour(server.process.address)
    try:
        warm = server.stream("warm")
        warm.exchange(routing_pb2.StreamRoutingRequest(sequence=1, watermark={"step": 5}).SerializeToString())
        warm.end()
        server.reset_peak()
        before = server.peak()
        refused = _send_refusable(server, rng, count // 2)
        taken = _send_damaged(server, rng, count - count // 2)
        assert server.peak() - before < MEMORY_BYTES
    finally:
        neighbour.stop()
    assert refused == count // 2
    assert taken > count // 200, "no damage left a message valid: the other way was not tested"
    assert neighbour.steps > 20
    with Client(server.process.address) as client:
        eventually(lambda: client.get_run("good").closed_step == neighbour.steps - 1)  # judged, too
        windows = client.get_metrics("good").windows
        assert [w.metrics["window_samples"] for w in windows] == [8.0] * neighbour.steps
    # It starts again with whatever it has stored.
    server.process.kill_and_restart()
    with Client(server.process.address) as client:
        assert {run.name for run in client.list_runs()} == {"good", "hostile"}
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "fault" not in said


def _send_refusable(server: Server, rng: random.Random, count: int) -> int:
    """Nothing of these is stored; how many were refused."""
    refused = 0
    while refused < count:
        content = server.content()
        session = f"refusable-{refused}"
        stream = server.stream(session)
        for sequence in range(1, min(50, count - refused) + 1):
            message = refusable(rng, sequence, step=10)
            response = stream.exchange(message.data)
            if isinstance(response, grpc.RpcError):
                assert message.ends, (message.name, response)
                assert response.code() is Code.INVALID_ARGUMENT, (message.name, response)
                assert len(response.details()) < 1000
                refused += 1
                break
            (rejection,) = response.rejections or [None]
            assert rejection is not None, message.name
            assert rejection.code in REFUSALS, (message.name, rejection)
            assert rejection.message.isprintable(), message.name
            assert len(rejection.message) < 1000, message.name
            refused += 1
        else:
            stream.end()
        assert server.content() == content
    return refused


def is_part(stored: routing_pb2.ObservationBatch, sent: routing_pb2.ObservationBatch) -> bool:
    """Whether what is stored is what a window wanted of a message, or what its raw scores came to."""
    if (stored.step, stored.group) != (sent.step, sent.group):
        return False
    stored_ids, sent_ids = from_tensor(stored.sample_ids).tolist(), from_tensor(sent.sample_ids).tolist()
    if sent.HasField("raw"):
        return stored.HasField("weights") and set(stored_ids) <= set(sent_ids)
    return set(stored_ids) < set(sent_ids)


def _send_damaged(server: Server, rng: random.Random, count: int) -> int:
    """What is stored comes from messages that were taken, and are valid; how many were taken."""
    taken = sent = 0
    while sent < count:
        rows = {row[-1] for row in server.content()["batches"]}
        accepted: list[bytes] = []
        # A watermark damaged into the far future closes all before it: now and then the job starts anew.
        stream = server.stream(f"damaged-{sent}", attempt=sent // 100)
        acked = 0
        for sequence in range(1, min(50, count - sent) + 1):
            data = damaged(rng, sequence, step=6 + sent)
            sent += 1
            response = stream.exchange(data)
            if isinstance(response, grpc.RpcError):
                assert response.code() in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION), (data, response)
                break
            assert all(rejection.code in REFUSALS for rejection in response.rejections), (data, response)
            # One that was told before is acknowledged, not looked at again.
            is_new = response.acked_sequence > acked
            acked = response.acked_sequence
            if is_new and not response.rejections:
                accepted.append(data)
        else:
            stream.end()
        wrong = [data for data in accepted if not is_valid(data)]
        assert not wrong, wrong
        requests = [routing_pb2.StreamRoutingRequest.FromString(data) for data in accepted]
        fresh = {row[-1] for row in server.content()["batches"]} - rows
        whole = {request.batch.SerializeToString() for request in requests}
        for stored in map(routing_pb2.ObservationBatch.FromString, fresh - whole):
            assert any(is_part(stored, request.batch) for request in requests), stored
        taken += len(accepted)
    return taken


HELLOS: dict[str, tuple[dict[str, Any], set[Code]]] = {
    "four billion ranks": ({"world_size": 2**32 - 1}, {Code.RESOURCE_EXHAUSTED}),
    "a rank beyond them": ({"rank": 2**32 - 1}, {Code.INVALID_ARGUMENT}),
    "no ranks": ({"world_size": 0}, {Code.INVALID_ARGUMENT}),
    "an attempt far ahead": ({"attempt": 2**32 - 1}, {Code.INVALID_ARGUMENT}),
    "a session of a megabyte": ({"session": "s" * 10**6}, {Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED}),
    "a session of two lines": ({"session": "a\nb"}, {Code.INVALID_ARGUMENT}),
    "no session": ({"session": ""}, {Code.INVALID_ARGUMENT}),
    "a run of a megabyte": ({"run": "r" * 10**6}, {Code.NOT_FOUND, Code.INVALID_ARGUMENT}),
    "a run of two lines": ({"run": "\n\x1b[31m"}, {Code.NOT_FOUND, Code.INVALID_ARGUMENT}),
}


@pytest.mark.parametrize("case", HELLOS)
def test_a_hostile_hello(service: Any, case: str) -> None:
    fields, codes = HELLOS[case]
    service.create()
    stream = service.stream()
    stream.hello(**fields)
    error = stream.error()
    assert error.code() in codes
    assert len(error.details()) < 1000
    assert error.details().isprintable()
    assert service.get().attempt == 0
    assert service.get().world_size == 0
    good = service.stream()
    good.hello()
    good.await_ack(0)


@pytest.mark.slow
def test_any_bytes_to_any_method(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """Every call is refused with a status that says so, or answered; none changes a run."""
    rng = random.Random(3)  # noqa: S311
    content = server.content()
    for method, data in _calls(rng):
        error = _failure(server.channel, method, data)
        if error is not None:
            assert error.code() in REFUSED_CALLS, (method, data[:100], error)
            assert len(error.details()) < 1000
            assert error.details().isprintable()
    assert server.content() == content
    assert "Traceback" not in capfd.readouterr().err


REFUSED_CALLS = {
    *(Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS),
    *(Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED),
}


def _failure(channel: grpc.Channel, method: str, data: bytes) -> grpc.RpcError | None:
    """How a call failed; method `u:…` gives one answer, `s:…` a stream of them."""
    try:
        if method.startswith("u:"):
            channel.unary_unary(method[2:])(data, timeout=60)
        else:
            answers = channel.unary_stream(method[2:])(data, timeout=60)
            next(answers)
            answers.cancel()
    except grpc.RpcError as error:
        return error
    return None


def _calls(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Methods with bytes: hostile by hand, and valid ones damaged. None of them may change run `hostile`."""
    name = "\n\x1b[31m" + "x" * 100_000
    checkpoints = [
        run_pb2.Checkpoint(step=-1),
        run_pb2.Checkpoint(step=2**63 - 1),
        run_pb2.Checkpoint(step=1, attempt=2**32 - 1),
        run_pb2.Checkpoint(step=1, tag="t" * 500_000),
        run_pb2.Checkpoint(step=1, tag="a\nb"),
    ]
    runs = "/pathwatch.v1.RunService/"
    by_hand = [
        *(
            (f"u:{runs}{call}", run_pb2.GetRunRequest(name=name))
            for call in ("GetRun", "FinishRun", "DeleteRun")
        ),
        *(
            (f"u:{runs}RegisterCheckpoint", run_pb2.RegisterCheckpointRequest(run="hostile", checkpoint=c))
            for c in checkpoints
        ),
        (f"u:{runs}RankCheckpoints", run_pb2.RankCheckpointsRequest(run=name, group=name, limit=2**32 - 1)),
        (f"u:{runs}CreateRun", run_pb2.CreateRunRequest(name=name, config=CONFIG)),
        (f"u:{runs}CreateRun", run_pb2.CreateRunRequest(name="hostile", config=CONFIG, attempt=2**32 - 1)),
        (f"u:{runs}CreateRun", run_pb2.CreateRunRequest(name="new", config=CONFIG, attempt=2**32 - 1)),
        ("u:/pathwatch.v1.SignalService/GetSignal", signal_pb2.GetSignalRequest(run=name)),
        (
            "u:/pathwatch.v1.SignalService/GetMetrics",
            signal_pb2.GetMetricsRequest(run="hostile", after_step=-(2**63), group=name, limit=2**32 - 1),
        ),
        ("s:/pathwatch.v1.SignalService/WatchSignals", signal_pb2.WatchSignalsRequest(run=name)),
        ("s:/pathwatch.v1.SignalService/GetObservations", signal_pb2.GetObservationsRequest(run=name)),
    ]
    for method, request in by_hand:
        yield method, request.SerializeToString()
    bomb = run_pb2.CreateRunRequest(config=run_pb2.RunConfig(groups=[run_pb2.GroupSettings()] * 100_000))
    yield f"u:{runs}CreateRun", bomb.SerializeToString()
    config = run_pb2.RunConfig(policy="quorum", policy_options={"quorum": "0.5"}, thresholds=[0.5, 0.7])
    config.MergeFrom(CONFIG)
    for _ in range(150):
        data = bytearray(run_pb2.ValidateRunRequest(name="new", config=config).SerializeToString())
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield f"u:{runs}ValidateRun", bytes(data)
        method, _ = rng.choice(by_hand[:3])
        yield method, rng.randbytes(rng.randrange(40))


@pytest.mark.slow
def test_bombs(server: Server) -> None:
    """What is small on the wire and large in memory is refused, at the size it would have."""
    server.channel.unary_unary("/pathwatch.v1.RunService/ListRuns")(b"", timeout=60)
    server.reset_peak()
    before = server.peak()
    create = server.channel.unary_unary("/pathwatch.v1.RunService/CreateRun")
    for data, options in (
        (bytes(300 << 20), {"compression": grpc.Compression.Gzip}),  # 300 KB on the wire
        (b"\x12\xc0\xc3\x93\x07" + b"\x3a\x00" * 7_500_000, {}),  # seven million groups
        (b"", {"metadata": (("x", "a" * 100_000),)}),
        (b"", {"metadata": tuple((f"x{i}", "a" * 100) for i in range(1000))}),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            create(data, timeout=60, **options)
        assert refused.value.code() is Code.RESOURCE_EXHAUSTED
    assert server.peak() - before < MEMORY_BYTES
    assert server.content()["runs"]
