"""Ranks that speak the protocol by hand and hold nothing back, and relays for them to send through."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from ports import lasting_port
from prometheus_client.parser import text_string_to_metric_families
from recorded_run import recorded

from pathwatch.client.tensors import to_tensor
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig, ServerConfig
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2

PATIENCE_SECONDS = 120.0
TRACE = recorded("text_c_s0")
WINDOW_STEPS = 5
STREAM = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=TRACE.layers, experts=TRACE.experts),
    mode=run_pb2.OBSERVATION_MODE_STREAM,
    window_steps=WINDOW_STEPS,
    capacity=24,
    grace_seconds=3600,
    keep_observations=True,
)
"""Of a stream made of TRACE, of whose windows a twentieth is kept."""


@dataclass
class HandRank:
    """One rank of a run: each call ends when all that was given so far is acknowledged."""

    run: str
    rank: int
    world_size: int
    attempt: int = 0
    session: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    acked: int = field(default=0, init=False)
    _requests: list[routing_pb2.StreamRoutingRequest] = field(default_factory=list, init=False)

    def send(
        self,
        address: str,
        payloads: Iterable[Any],
        wait_before: Callable[[int], None] = lambda sequence: None,
    ) -> list[routing_pb2.StreamRoutingResponse]:
        """Batches, watermarks and geometries in their order; all that was answered. Raises grpc.RpcError.

        `wait_before` is called before each sequence is sent.
        """
        self._take(payloads)
        responses = list(self._call(address, wait_before))
        assert self.acked == len(self._requests)
        return responses

    def insist(self, address: str, payloads: Iterable[Any], wait_before: Callable[[int], None]) -> None:
        """The same, over and over until it is done."""
        self._take(payloads)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.acked < len(self._requests):
            try:
                for _ in self._call(address, wait_before):
                    pass
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _take(self, payloads: Iterable[Any]) -> None:
        for payload in payloads:
            self._requests.append(request(len(self._requests) + 1, payload))

    def _call(
        self, address: str, wait_before: Callable[[int], None]
    ) -> Iterator[routing_pb2.StreamRoutingResponse]:
        hello = routing_pb2.StreamHello(
            run=self.run,
            rank=self.rank,
            world_size=self.world_size,
            attempt=self.attempt,
            session=self.session or f"life-{self.rank}",
        )

        def requests() -> Iterator[routing_pb2.StreamRoutingRequest]:
            yield routing_pb2.StreamRoutingRequest(hello=hello)
            for message in self._requests[self.acked :]:
                wait_before(message.sequence)
                yield message

        with grpc.insecure_channel(address) as channel:
            stub = routing_pb2_grpc.RoutingServiceStub(channel)
            answers = stub.StreamRouting(requests(), timeout=PATIENCE_SECONDS, metadata=self.metadata)
            for response in answers:
                self.acked = max(self.acked, response.acked_sequence)
                yield response


def request(sequence: int, payload: Any) -> routing_pb2.StreamRoutingRequest:
    """The message that carries it."""
    name = {
        routing_pb2.ObservationBatch: "batch",
        routing_pb2.Watermark: "watermark",
        routing_pb2.ExpertGeometry: "geometry",
    }[type(payload)]
    return routing_pb2.StreamRoutingRequest(sequence=sequence, **{name: payload})


def share(index: int, rank: int, ranks: int) -> list[routing_pb2.ObservationBatch]:
    """What a rank observes at a step of TRACE, whose samples are dealt out among ranks, anew each time."""
    batches, trace = [], TRACE
    mine_N = np.flatnonzero((np.arange(trace.losses_TGN.shape[2]) + index) % ranks == rank)
    for g, group in enumerate(trace.groups):
        batches.append(
            routing_pb2.ObservationBatch(
                step=index,
                group=group,
                sample_ids=to_tensor(mine_N + 1000 * index),  # a stream sees ever new samples
                losses=to_tensor(trace.losses_TGN[index, g, mine_N]),
                weights=to_tensor(trace.weights_TGNLK[index, g, mine_N]),
            )
        )
    return batches


def together(work: Callable[[int], None], ranks: int) -> None:
    """Does it for all ranks at the same time; what one of them raises is raised."""
    errors: list[BaseException] = []

    def guarded(rank: int) -> None:
        try:
            work(rank)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def counted(http: str, name: str, **labels: str) -> float:
    """Value of a series of /metrics."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=30) as page:
        families = text_string_to_metric_families(page.read().decode())
        (value,) = (s.value for f in families for s in f.samples if (s.name, s.labels) == (name, labels))
    return value


def cut(relay: BackgroundServer) -> float:
    """Observations that a relay has left out so far."""
    return counted(relay.http_address, "pathwatch_relay_observations_total", result="cut")


@contextmanager
def relayed(data: Path, relays: int) -> Iterator[tuple[BackgroundServer, list[BackgroundServer]]]:
    """A server and relays to it, all in this process."""
    with ExitStack() as running:
        server = running.enter_context(BackgroundServer(ServerConfig(data=data)))
        there = RelayConfig(upstream=server.grpc_address)
        yield server, [running.enter_context(BackgroundServer(there)) for _ in range(relays)]


class RelayProcess:
    """`pathwatch serve --upstream`; always at the same address."""

    def __init__(self, upstream: str, *options: str) -> None:
        self._upstream = upstream
        self._options = options
        self.address, self.http = (f"127.0.0.1:{lasting_port()}" for _ in range(2))
        self.start()

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "pathwatch.server.cli", "serve", "--upstream", self._upstream]
        self._process = subprocess.Popen(
            [*command, "--listen", self.address, "--http", self.http, *self._options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"grpc={self.address} http={self.http}\n"

    def kill(self) -> None:
        """SIGKILL, and wait for the end; also of one that has ended already."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code."""
        self._process.send_signal(how)
        code = self._process.wait(PATIENCE_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def __enter__(self) -> RelayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
