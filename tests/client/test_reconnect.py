"""How connections end and begin again: when waits are due, and what is said of them."""

import logging
import socket

import grpc
import pytest
from chaos_proxy import ChaosProxy
from name_server import NameServer
from resets import RESET

from pathwatch.client import Credentials, attempts, channel, reconnect
from pathwatch.client.uplink import Uplink


@pytest.fixture
def any_life_is_long(monkeypatch):
    """A connection is a good one however short it was."""
    monkeypatch.setattr(reconnect, "_FIRST_DELAY", 0.0)


@pytest.fixture
def no_life_is_long(monkeypatch):
    """However slow the machine, no connection lasts long enough for a good one."""
    monkeypatch.setattr(reconnect, "_FIRST_DELAY", 600.0)


@pytest.fixture
def quick_pings(monkeypatch):
    """A peer that is silent for a second is asked for a sign of life, and given another one."""
    options = dict(channel._OPTIONS) | {"grpc.keepalive_time_ms": 1000}
    monkeypatch.setattr(channel, "_OPTIONS", tuple(options.items()))
    monkeypatch.setattr(attempts, "PING_SECONDS", 1.0)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_stream_that_the_server_ends_is_opened_again_without_waiting_or_warning(
    sidecar, streams, observe, waits, any_life_is_long, caplog
):
    sidecar.end_after = 4
    stream = streams(sidecar.address)
    for step in range(20):
        observe(stream, step)
    assert stream.flush(60)
    assert sidecar.sequences() == list(range(1, 21))
    assert stream.stats.reconnects >= 4
    assert (waits, warnings(caplog), stream.stats.last_error) == ([], [], None)


@pytest.mark.slow
def test_a_connection_that_ends_by_age_is_made_again_without_waiting_or_warning(
    sidecar, streams, observe, eventually, waits, any_life_is_long, caplog
):
    sidecar.stop()
    sidecar.options = [("grpc.max_connection_age_ms", 400), ("grpc.max_connection_age_grace_ms", 400)]
    sidecar.start()
    stream = streams(sidecar.address)
    steps = 0

    def train_until_the_fourth_connection() -> bool:
        nonlocal steps
        observe(stream, steps)
        steps += 1
        stream.flush(0.05)
        return stream.stats.reconnects >= 3

    eventually(train_until_the_fourth_connection)
    assert stream.flush(60)
    assert list(dict.fromkeys(sidecar.sequences())) == list(range(1, steps + 1))
    assert (warnings(caplog), waits) == ([], [(0, False)] * len(waits))
    assert stream.stats.last_error is None or RESET.search(stream.stats.last_error)


def test_a_connection_that_is_cut_and_comes_again_is_no_news(
    sidecar, streams, observe, eventually, waits, any_life_is_long, caplog
):
    """As when a server closes an aged one while it is written to: how its calls ended is lost."""
    with ChaosProxy(sidecar.address) as proxy:
        stream = streams(proxy.address)
        for step in range(3):
            observe(stream, step)
            assert stream.flush(60)
            proxy.cut()
            eventually(lambda: stream.stats.reconnects > step)  # noqa: B023
        assert (warnings(caplog), waits) == ([], [(0, False)] * 3)
        assert stream.stats.last_error is not None
        proxy.refuse()
        proxy.cut()
        (text,) = eventually(lambda: warnings(caplog))
        assert f"no pathwatch server at {proxy.address}" in text


def test_connections_that_are_cut_one_after_the_other_are_news(
    sidecar, streams, observe, eventually, waits, any_life_is_long, caplog
):
    """As by a proxy that takes no large messages: each serves a while, and nothing arrives."""
    with ChaosProxy(sidecar.address) as proxy:
        stream = streams(proxy.address)
        for step in range(5):
            assert warnings(caplog) == []
            observe(stream, step)
            assert stream.flush(60)
            proxy.cut()
            eventually(lambda: stream.stats.reconnects > step)  # noqa: B023
        (text,) = eventually(lambda: warnings(caplog))
        assert f"no pathwatch server at {proxy.address}" in text


def test_connections_that_are_cut_at_once_are_news(
    sidecar, streams, observe, eventually, waits, no_life_is_long, caplog
):
    with ChaosProxy(sidecar.address) as proxy:
        stream = streams(proxy.address)
        observe(stream, 0)
        assert stream.flush(60)
        proxy.cut()
        eventually(lambda: warnings(caplog))


def test_a_server_that_ends_every_stream_at_once_is_asked_ever_more_seldom(
    sidecar, streams, eventually, waits, no_life_is_long
):
    sidecar.end_after = 0
    streams(sidecar.address)
    eventually(lambda: len(waits) >= 5)
    assert [failures for failures, _ in waits[:5]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("several", [False, True])
def test_after_a_refusal_waits_are_longer(several):
    for failures in range(1, 20):
        refused = reconnect._delay(failures, refused=True, several=several)
        assert refused >= reconnect._delay(failures, refused=False, several=several)
        assert refused > 0.5


def test_among_several_servers_waits_stay_short_and_apart():
    """Of a run whose server goes all ranks go to the same one next."""
    waits = sorted(reconnect._delay(30, refused=False, several=True) for _ in range(1000))
    assert 0.1 <= waits[0] < 0.3
    assert 0.8 < waits[-1] <= 1.0
    assert reconnect._delay(30, refused=False, several=False) > 10


@pytest.mark.slow
def test_a_frozen_network_is_noticed_while_the_job_runs_and_said_once(
    sidecar, streams, observe, eventually, quick_pings, waits, caplog
):
    with ChaosProxy(sidecar.address) as proxy:
        stream = streams(proxy.address)
        observe(stream, 0)
        assert stream.flush(60)
        proxy.stall()
        observe(stream, 1)
        eventually(lambda: not stream.stats.connected)
        (text,) = eventually(lambda: warnings(caplog))
        assert "does not answer pings" in text
        proxy.resume()
        assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == [0, 1]


@pytest.mark.robustness
def test_a_slow_network_does_not_end_connection_after_connection(
    sidecar, streams, observe, quick_pings, waits
):
    """Behind data that waits to be forwarded a ping takes longer than it may; so it may take ever longer."""
    with ChaosProxy(sidecar.address) as proxy:
        stream = streams(proxy.address)
        observe(stream, 0)
        assert stream.flush(60)
        proxy.throttle(100_000)
        observe(stream, 1, n=20_000)  # 900 kB
        assert stream.flush(100)  # with pings that may take no longer nothing would ever arrive
    assert stream.stats.reconnects >= 1


@pytest.mark.slow
def test_a_server_that_holds_back_its_acknowledgements_is_left_alone(
    sidecar, streams, observe, quick_pings, caplog
):
    """As one with a full disk does: it is alive, and to connect again would only send everything twice."""
    sidecar.acks = False
    stream = streams(sidecar.address)
    observe(stream, 0)
    assert not stream.flush(4)  # twice what it takes to notice a frozen one
    assert stream.stats.connected
    assert stream.stats.reconnects == 0
    assert warnings(caplog) == []


def test_two_connections_that_are_lost_are_one_warning(sidecar, streams, observe, eventually, waits, caplog):
    stream = streams(sidecar.address, watch=True)
    observe(stream, 1)
    assert stream.flush(60)
    eventually(lambda: sidecar.requests)  # a server that ends leaves who is just connecting without an answer
    sidecar.stop()
    eventually(lambda: warnings(caplog) and stream._follower.last_error)
    before = len(waits)
    eventually(lambda: len(waits) >= before + 6)  # of both
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("ends", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_one_outage_is_one_warning_however_it_shows(sidecar, streams, eventually, waits, caplog, ends):
    sidecar.refusal = (ends, "away")
    streams(sidecar.address)
    eventually(lambda: len(waits) >= 2)
    sidecar.refusal = (grpc.StatusCode.UNAVAILABLE, "still away")
    before = len(waits)
    eventually(lambda: len(waits) >= before + 3)
    assert len(warnings(caplog)) == 1
    sidecar.refusal = (grpc.StatusCode.UNAUTHENTICATED, "no token")  # somebody has to know of this
    eventually(lambda: len(warnings(caplog)) == 2)


@pytest.mark.slow
def test_a_black_hole_keeps_nobody_from_closing(streams, observe, eventually, threads_left, caplog):
    """A listener whose queue is full: the kernel drops connection requests without a word."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        stream = streams("{}:{}".format(*full.getsockname()))
        for step in range(100):
            observe(stream, step)
        assert not stream.flush(0.2)
        stream.close(timeout=1.0)
        eventually(lambda: threads_left() == [])
        for filler in fillers:
            filler.close()
    assert "bytes not delivered" in warnings(caplog)[-1]


def test_a_name_that_does_not_resolve_yet_and_then_points_elsewhere(
    sidecar, streams, observe, eventually, waits, monkeypatch
):
    """A service that comes up after the job, and then moves to another address."""
    second = "127.0.0.2"
    with NameServer() as names:
        stream = streams(
            f"dns://{names.address}/sidecar.test:{sidecar.port}", credentials=Credentials(insecure=True)
        )
        observe(stream, 0)
        eventually(lambda: stream.stats.last_error)
        assert not stream.stats.connected
        names.addresses["sidecar.test"] = "127.0.0.1"
        assert stream.flush(60)
        sidecar.stop()
        names.addresses["sidecar.test"] = second
        sidecar.host = second
        sidecar.start()
        observe(stream, 1)
        assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == [0, 1]


def test_a_checkpoint_on_a_connection_that_is_being_closed_waits_for_the_next(
    sidecar, streams, observe, waits, monkeypatch, caplog
):
    """A stub made then takes the process with it; a call that raises is a complaint of gRPC in the log."""
    register, closed = Uplink._register, []

    def register_late(self, connection, *arguments):
        if not closed:
            closed.append(connection)
            connection.close()
        return register(self, connection, *arguments)

    monkeypatch.setattr(Uplink, "_register", register_late)
    stream = streams(sidecar.address)
    observe(stream, 0)
    stream.register_checkpoint(step=0, tag="first")
    assert stream.flush(60)
    assert closed
    assert [c.checkpoint.tag for c in sidecar.checkpoints] == ["first"]
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.name.startswith("grpc")] == []
