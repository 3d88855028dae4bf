"""Connections: how old they grow, how often they may be pinged, and when a silent one is given up."""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from chaos_proxy import ChaosProxy
from resets import RESET

from pathwatch.client import Client, RoutingStream
from pathwatch.server.api import channel_options, routing
from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.config import Limits
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, signal_pb2

TOPOLOGY = run_pb2.Topology(layers=2, experts=4)
RANKS = 3


@pytest.mark.slow
def test_streams_that_grow_old_come_again_and_lose_nothing(
    serve: Callable[..., Any], eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service = serve(max_connection_age_seconds=0.4)
    service.create()
    rng = np.random.default_rng(0)
    caplog.set_level(logging.INFO, "pathwatch")
    with ExitStack() as closing:
        streams = []
        for rank in range(RANKS):
            stream = RoutingStream(service.grpc_address, run="run", rank=rank, world_size=RANKS)
            closing.callback(stream.close)
            streams.append(stream)
        steps = 0
        # Under load all the time, so that connections end in the middle of it.
        deadline = time.monotonic() + 100
        while min(reconnects := [stream.stats.reconnects for stream in streams]) < 4 or sum(reconnects) < 24:
            assert time.monotonic() < deadline, [stream.stats for stream in streams]
            for rank, stream in enumerate(streams):
                for group in ("math", "code"):
                    stream.observe(
                        step=steps,
                        group=group,
                        sample_ids=np.arange(rank * 100, rank * 100 + 8),
                        weights=rng.dirichlet(np.ones(4), (8, 2)).astype(np.float32),
                        losses=np.ones(8, np.float32),
                    )
                stream.watermark(steps)
            steps += 1
            # As fast as the server judges: what waits there must not hold back the acknowledgements.
            eventually(lambda: service.get().closed_step >= steps - 8)  # noqa: B023
        assert all(stream.flush(60) for stream in streams)
        stats = [stream.stats for stream in streams]
    assert [(one.rejected, one.dropped_steps) for one in stats] == [(0, 0)] * RANKS
    assert [one.last_error for one in stats if one.last_error and not RESET.search(one.last_error)] == []
    eventually(lambda: service.get().closed_step == steps - 1)
    windows = service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run")).windows
    seen = {(w.step, w.group): (w.metrics["window_samples"], w.partial) for w in windows}
    assert seen == {(step, g): (8.0 * RANKS, False) for step in range(steps) for g in ("math", "code")}
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [text for text in warnings if not RESET.search(text)] == []


def test_a_stream_that_grows_old_ends_well(
    serve: Callable[..., Any], make_batch: Any, eventually: Any
) -> None:
    service = serve(max_connection_age_seconds=0.3)
    service.create()

    def is_acknowledged() -> bool:
        """On a busy machine the time may come before the message."""
        stream = service.stream()
        stream.hello()
        last = stream.send(make_batch(1))
        stream.responses.extend(stream.call)  # to its end, which we did not ask for
        assert stream.call.code() is grpc.StatusCode.OK
        return any(response.acked_sequence == last for response in stream.responses)

    eventually(is_acknowledged)


def test_a_stream_that_grows_old_before_its_hello_is_answered_ends_well(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the disk takes its time: else it would last for ever."""
    old, written = threading.Event(), threading.Event()
    commit, retire = SqliteStore.commit, routing._StreamCall.retire

    def late(*arguments: Any) -> None:
        assert written.wait(60)
        commit(*arguments)

    def told(call: Any) -> None:
        retire(call)
        old.set()

    service = serve(max_connection_age_seconds=0.3)
    service.create()
    monkeypatch.setattr(routing._StreamCall, "retire", told)
    monkeypatch.setattr(SqliteStore, "commit", late)
    try:
        stream = service.stream()
        stream.hello()
        assert old.wait(60)
    finally:
        written.set()
    stream.responses.extend(stream.call)
    assert stream.call.code() is grpc.StatusCode.OK


def test_a_message_under_way_does_not_keep_an_old_stream_open(
    serve: Callable[..., Any], make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large message is being decoded when the time comes: it is as if it had not been read."""
    held = threading.Event()
    decode = routing.decode_batch

    def slowly(*arguments: Any) -> Any:
        held.wait(30)
        return decode(*arguments)

    monkeypatch.setattr(routing, "decode_batch", slowly)
    service = serve(max_connection_age_seconds=0.5)
    service.create()
    stream = service.stream()
    try:
        stream.hello()
        stream.send(make_batch(1, n=4096))
        stream.responses.extend(stream.call)
        assert not held.is_set()
    finally:
        held.set()
    assert stream.call.code() is grpc.StatusCode.OK
    assert [response for response in stream.responses if response.acked_sequence] == []


@pytest.mark.slow
def test_a_watch_that_grows_old_goes_on_without_a_word_twice(
    serve: Callable[..., Any], eventually: Any
) -> None:
    service = serve(max_connection_age_seconds=0.4)
    service.create()
    call = service.signals.WatchSignals(signal_pb2.WatchSignalsRequest(run="run"), timeout=30)
    assert len(list(call)) == 1
    assert call.code() is grpc.StatusCode.OK
    with Client(service.grpc_address) as client:
        watched = client.watch_signals("run", timeout=60)
        assert next(watched).step == -1
        started = time.monotonic()
        eventually(lambda: time.monotonic() - started > 1.4)  # grows old thrice
        stream = RoutingStream(service.grpc_address, run="run")  # it grows old, too, and comes again
        weights = np.full((8, 2, 4), 0.25, np.float32)
        for step in range(12):
            stream.observe(
                step=step,
                group="math",
                sample_ids=np.arange(8),
                weights=weights,
                losses=np.full(8, 3 / (1 + step)),
            )
        stream.watermark(11)
        assert stream.flush(60)
        stream.close()
        service.runs.FinishRun(run_pb2.FinishRunRequest(name="run"))
        rest = list(watched)
    assert rest[-1].step == 11
    assert all(a != b for a, b in pairwise(rest))


def pinging(address: str, every_ms: int) -> grpc.Channel:
    """A channel that pings whether or not it has anything to say."""
    options = (
        ("grpc.keepalive_time_ms", every_ms),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return grpc.insecure_channel(address, options=options)


@pytest.mark.slow
def test_who_pings_too_often_is_cut_off(service: Any, make_stream: Any) -> None:
    """The server's own options, a client that really pings, twenty times as often as allowed."""
    service.create()
    with ChaosProxy(service.grpc_address) as proxy, pinging(proxy.address, 500) as channel:
        stream = make_stream(channel)
        stream.hello()
        error = stream.error()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "ping" in error.details().lower()


@pytest.mark.slow
def test_who_pings_at_the_rate_allowed_stays(
    serve: Callable[..., Any], make_stream: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same client, and a rate allowed that is shortened as its own: the option works both ways."""
    monkeypatch.setattr(channel_options, "MIN_PING_MS", 50)
    service = serve()
    service.create()
    with ChaosProxy(service.grpc_address) as proxy, pinging(proxy.address, 500) as channel:
        stream = make_stream(channel)
        stream.hello()
        stream.await_ack(stream.send(make_batch(1)))
        before = proxy.bytes_up
        # A ping is a frame of 17 bytes; acknowledging the last response may be one more.
        proxy.wait_for(lambda proxy: proxy.bytes_up >= before + 8 * 17)
        assert stream.await_ack(stream.send(make_batch(2))) == []
        stream.finish()
    assert stream.call.code() is grpc.StatusCode.OK


@pytest.mark.slow
def test_a_sender_that_vanished_makes_room(
    serve: Callable[..., Any], make_stream: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection: nobody says goodbye. The server asks, hears nothing, and ends the stream."""
    # Long enough for those who are there, on a busy machine, too.
    monkeypatch.setattr(channel_options, "KEEPALIVE_MS", 1000)
    monkeypatch.setattr(channel_options, "KEEPALIVE_TIMEOUT_MS", 2000)
    service = serve(Limits(streams=1))
    service.create()

    def gets_in() -> bool:
        stream = service.stream()
        stream.hello(session="second")
        try:
            next(iter(stream.call))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
            return False
        return True

    with ChaosProxy(service.grpc_address) as proxy, grpc.insecure_channel(proxy.address) as channel:
        stream = make_stream(channel)
        stream.hello()
        stream.await_ack(0)
        assert not gets_in()
        proxy.stall()
        eventually(gets_in)


def test_every_option_is_one_that_grpc_has() -> None:
    """Others it ignores without a word, such as the name with `recv` that many pages give."""
    core = importlib.util.find_spec("grpc._cython.cygrpc")
    assert core is not None
    assert core.origin is not None
    known = Path(core.origin).read_bytes()
    options = channel_options.channel_options(Limits(), ConnectionAge(60))
    assert [name for name, _ in options if name.encode() + b"\0" not in known] == []
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms\0" not in known
