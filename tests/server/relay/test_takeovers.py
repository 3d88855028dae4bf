"""Runs that move from one server to another, and servers that answer nothing, as seen through a relay."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import grpc
import pytest
from ports import lasting_port
from relaying import HandRank
from standing_in import StandIn, serving

from pathwatch.client import Client, PathwatchError
from pathwatch.client.endpoints import Endpoints
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig
from pathwatch.server.relay import avoidance, channels
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc

CALLS = 3
"""Of the same kind, until the lease of a server that is gone has run out."""


@pytest.fixture
def gone() -> str:
    """Address of a server that is not there any more; nobody else gets it."""
    return f"127.0.0.1:{lasting_port()}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "said"), [("{there}", "{gone}"), ("{gone},{there}", "{gone}"), ("{there}", "")]
)
def test_calls_wait_while_a_run_is_taken_over(gone: str, names: str, said: str) -> None:
    taker = StandIn(owner=said.format(gone=gone), times=CALLS)
    with (
        serving(taker) as there,
        BackgroundServer(RelayConfig(upstream=names.format(there=there, gone=gone))) as relay,
        grpc.insecure_channel(relay.grpc_address) as channel,  # which, unlike a client, asks once
    ):
        request = run_pb2.GetRunRequest(name="run")
        assert run_pb2_grpc.RunServiceStub(channel).GetRun(request, timeout=60).run.name == "run"
    assert taker.asked == CALLS + 1


@pytest.mark.slow
def test_ranks_wait_while_their_run_is_taken_over(gone: str) -> None:
    taker = StandIn(owner=gone, times=CALLS)
    rank = HandRank("run", 0, 1)
    with serving(taker) as there, BackgroundServer(RelayConfig(upstream=there)) as relay:
        rank.send(relay.grpc_address, [routing_pb2.Watermark(step=0)])
    assert rank.acked == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [True, False])
def test_a_watch_goes_on_where_the_run_goes(is_named: bool) -> None:
    former, taker = StandIn(), StandIn(revision=2)
    with serving(former) as here, serving(taker) as there:
        upstream = here if is_named else f"{here},{there}"
        if not is_named:  # it ends without a word on where to go, and by then the other has the run
            taker.owner, taker.times = here, 1
        with (
            BackgroundServer(RelayConfig(upstream=upstream)) as relay,
            Client(relay.grpc_address) as client,
        ):
            signals = client.watch_signals("run", timeout=60)
            assert next(signals).revision == 1
            if is_named:
                former.owner = there
            former.moved.set()
            while (revision := next(signals).revision) == 1:
                pass
            assert revision == 2


@pytest.fixture
def hole() -> Iterator[socket.socket]:
    """Takes connections, and answers nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        listening.setblocking(False)
        yield listening


def connections(hole: socket.socket) -> int:
    """Since this was last asked."""
    count = 0
    while True:
        try:
            hole.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def first_asked_at(address: str, upstream: str, count: int) -> list[str]:
    """Names of runs for which that server is asked first."""
    names = (f"run-{number}" for number in range(1000))
    return [run for run in names if Endpoints(upstream, run).candidates()[0] == address][:count]


@pytest.mark.slow
def test_a_machine_that_answers_nothing_is_given_up_and_left_alone(
    hole: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "CONNECT_SECONDS", 2.0)
    monkeypatch.setattr(avoidance, "ALONE_SECONDS", 600.0)
    silent = "{}:{}".format(*hole.getsockname())
    with serving(StandIn()) as there:
        upstream = f"{silent},{there}"
        first, second = first_asked_at(silent, upstream, 2)
        with (
            BackgroundServer(RelayConfig(upstream=upstream)) as relay,
            Client(relay.grpc_address, timeout=15) as client,  # less than gRPC itself gives a connection
        ):
            client.get_run(first)
            assert connections(hole) > 0
            client.get_run(second)
            assert connections(hole) == 0


@pytest.mark.slow
def test_a_server_that_did_not_answer_in_time_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    noted, note = threading.Event(), avoidance.Avoidance.slow

    def slow(self: avoidance.Avoidance, address: str, seconds: float) -> None:
        note(self, address, seconds)
        noted.set()

    monkeypatch.setattr(avoidance.Avoidance, "slow", slow)
    monkeypatch.setattr(avoidance, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(avoidance, "ALONE_SECONDS", 600.0)
    frozen, other = StandIn(), StandIn()
    frozen.answering.clear()
    with serving(frozen) as here, serving(other) as there:
        upstream = f"{here},{there}"
        (run,) = first_asked_at(here, upstream, 1)
        with BackgroundServer(RelayConfig(upstream=upstream)) as relay:
            with Client(relay.grpc_address, timeout=5) as client, pytest.raises(PathwatchError) as late:
                client.get_run(run)
            assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert noted.wait(60)  # the caller may hear of its deadline before the relay does
            with Client(relay.grpc_address, timeout=60) as client:
                client.get_run(run)
    assert (frozen.asked, other.asked) == (1, 1)
