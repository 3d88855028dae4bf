"""Streams among several servers of which one has the run: where they go, and what is said of it."""

import logging
import socket
from pathlib import Path

import grpc
import pytest

from pathwatch.client import Credentials, reconnect, route
from pathwatch.v1 import signal_pb2

TLS = Path(__file__).parents[1] / "data" / "tls"


@pytest.fixture
def said(caplog):
    """Warnings so far."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def none_is_avoided(monkeypatch):
    """However slow the machine, no server counts as one that cannot be reached at once (test_route.py)."""
    monkeypatch.setattr(route, "_LEAST_AVOIDED", 600.0)


def server(sidecars):
    return ",".join(sidecar.address for sidecar in sidecars)


def test_the_owner_is_gone_to_at_once_and_first_from_then_on(
    sidecars, streams, observe, eventually, waits, said
):
    first, second, owner = sidecars
    first.owner = second.owner = owner.address
    stream = streams(server(sidecars), watch=True)
    observe(stream, 0)
    assert stream.flush(60)
    assert owner.sequences() == [1]
    assert (waits, said(), stream.stats.last_error) == ([], [], None)
    owner.give(signal_pb2.Signal(run="run", revision=1))
    eventually(lambda: stream.signal is not None)
    asked = len(first.metadata)  # by the stream, and by who follows signals
    owner.end_after = 1
    for step in (1, 2):
        observe(stream, step)
        assert stream.flush(60)
    assert owner.sequences() == [1, 2, 3]
    eventually(lambda: len(owner.hellos) == 3)
    assert (len(first.metadata), asked) == (2, 2)


def test_a_run_that_moves_in_the_midst_is_followed(sidecars, streams, observe, waits, said):
    first, _, third = sidecars
    stream = streams(server(sidecars))
    observe(stream, 0)
    assert stream.flush(60)
    first.owner = third.address
    observe(stream, 1)
    assert stream.flush(60)
    assert [batch.step for batch in first.received("batch")] == [0]
    assert [batch.step for batch in third.received("batch")] == [1]
    assert (waits, said(), stream.stats.last_error) == ([], [], None)


def test_a_lone_server_may_name_another(sidecars, streams, observe, waits, said):
    first, second, _ = sidecars
    first.owner = second.address
    stream = streams(first.address)
    observe(stream, 0)
    assert stream.flush(60)
    assert second.sequences() == [1]
    assert (waits, said()) == ([], [])


@pytest.mark.parametrize("named", [True, False])
def test_a_lone_server_is_asked_again_soon_while_the_run_moves(
    sidecars, streams, observe, eventually, monkeypatch, named
):
    """As behind a plain Kubernetes service, or a relay, which names nobody."""
    delay, longest = reconnect._delay, []

    def at_last(_, refused, several):
        longest.append(delay(16, refused, several))
        return 0.0

    monkeypatch.setattr(reconnect, "_delay", at_last)
    first, dead, _ = sidecars
    dead.stop()
    first.owner = dead.address if named else ""
    stream = streams(first.address)
    observe(stream, 0)
    eventually(lambda: len(longest) >= 4)
    assert max(longest) <= 1.0
    first.owner = None  # it takes the run over
    assert stream.flush(60)
    assert first.sequences() == [1]


def test_servers_that_name_one_another_are_asked_after_a_wait(
    sidecars, streams, observe, eventually, waits, said
):
    first, second, third = sidecars
    first.owner, second.owner, third.owner = second.address, first.address, first.address
    stream = streams(server(sidecars))
    observe(stream, 0)
    eventually(lambda: len(waits) >= 4)
    asked = sum(len(sidecar.metadata) for sidecar in sidecars)
    assert asked <= 5 * (len(waits) + 1)
    assert any("is served by" in text for text in said())
    assert len(said()) == 1
    second.owner = None
    assert stream.flush(60)
    assert second.sequences() == [1]


def test_an_owner_that_is_dead_is_waited_for_among_the_others(
    sidecars, streams, observe, eventually, waits, said
):
    first, second, owner = sidecars
    owner.stop()
    first.owner = second.owner = owner.address
    stream = streams(server([first, second]))
    observe(stream, 0)
    eventually(lambda: len(waits) >= 6)
    assert {len(first.metadata) > 1, len(second.metadata) > 1} == {True}
    (text,) = said()
    assert f"no pathwatch server at {owner.address}" in text
    second.owner = None  # it takes the run over
    assert stream.flush(60)
    assert second.sequences() == [1]


def test_of_a_server_that_is_away_nothing_is_said_while_another_serves(
    sidecars, streams, observe, waits, said
):
    first, second, _ = sidecars
    stream = streams(server(sidecars))
    observe(stream, 0)
    assert stream.flush(60)
    first.stop()
    observe(stream, 1)
    assert stream.flush(60)
    assert [batch.step for batch in second.received("batch")] == [1]
    assert said() == []
    assert first.address in stream.stats.last_error


def test_one_outage_of_all_is_one_warning(sidecars, streams, observe, eventually, waits, said):
    for sidecar in sidecars:
        sidecar.stop()
    stream = streams(server(sidecars))
    observe(stream, 0)
    eventually(lambda: len(waits) >= 9)
    assert len(said()) == 1
    sidecars[2].start()
    assert stream.flush(60)
    assert sidecars[2].sequences() == [1]


def test_a_refusal_holds_for_all(sidecars, streams, observe, eventually, waits, said):
    first, second, _ = sidecars
    first.refusal = (grpc.StatusCode.PERMISSION_DENIED, "the token is for another run")
    stream = streams(server(sidecars))
    observe(stream, 0)
    eventually(lambda: len(waits) >= 3)
    assert {refused for _, refused in waits} == {True}
    assert second.metadata == []
    assert len(said()) == 1
    first.refusal = None
    assert stream.flush(60)


def test_what_is_left_at_the_end_goes_to_whoever_serves(sidecars, streams, observe, eventually, monkeypatch):
    waiting = []
    monkeypatch.setattr(reconnect, "_delay", lambda *_: waiting.append(1) or 600.0)
    for sidecar in sidecars:
        sidecar.stop()
    stream = streams(server(sidecars))
    observe(stream, 0)
    eventually(lambda: waiting)
    sidecars[2].start()
    stream.close(60)
    assert sidecars[2].sequences() == [1]


def test_a_file_of_servers_may_be_rewritten_meanwhile(
    sidecars, streams, observe, eventually, waits, said, tmp_path
):
    first, second, _ = sidecars
    path = tmp_path / "shards"
    stream = streams(f"file://{path}")
    observe(stream, 0)
    eventually(lambda: said())
    assert f"file of servers {path}: No such file" in said()[0]
    path.write_text(f"{first.address}\n")
    assert stream.flush(60)
    path.write_text(f"# moved\n{second.address}\n")
    first.stop()
    observe(stream, 1)
    assert stream.flush(60)
    assert [batch.step for batch in second.received("batch")] == [1]
    assert len(said()) <= 2


def test_an_owner_in_the_clear_off_this_machine_is_not_followed(
    sidecars, streams, observe, eventually, waits, said
):
    first, second, _ = sidecars
    first.owner = second.owner = "10.1.2.3:50051"
    stream = streams(server([first, second]))
    observe(stream, 0)
    eventually(lambda: len(waits) >= 4)
    (text,) = said()
    assert "refusing plaintext to 10.1.2.3:50051" in text
    first.owner = None
    assert stream.flush(60)
    assert first.sequences() == [1]


@pytest.mark.parametrize("owner", ["unix:/tmp/other", "file:///etc/passwd", "nonsense", "dns:///x:1"])
def test_an_owner_that_is_no_address_is_none(sidecars, streams, observe, waits, owner):
    first, second, _ = sidecars
    first.owner = owner
    stream = streams(server(sidecars))
    observe(stream, 0)
    assert stream.flush(60)
    assert second.sequences() == [1]


@pytest.fixture
def at_another_address(sidecar):
    """A server whose certificate is for localhost and 127.0.0.1, at 127.0.0.2."""
    sidecar.stop()
    sidecar.host = "127.0.0.2"
    sidecar.credentials = grpc.ssl_server_credentials(
        [((TLS / "server.key").read_bytes(), (TLS / "server.pem").read_bytes())]
    )
    sidecar.start()
    return sidecar


def test_certificates_are_for_the_name_that_was_looked_up(
    at_another_address, streams, observe, waits, monkeypatch
):
    system = socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        return system("127.0.0.2" if host == "localhost" else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    stream = streams(
        f"dns:///localhost:{at_another_address.port}", credentials=Credentials(root_ca=TLS / "ca.pem")
    )
    observe(stream, 0)
    assert stream.flush(60)
    assert at_another_address.sequences() == [1]


def test_an_owner_has_a_certificate_of_its_own(
    at_another_address, sidecars, streams, observe, eventually, waits, said
):
    first, _, _ = sidecars
    first.stop()
    first.credentials = at_another_address.credentials
    first.owner = at_another_address.address
    first.start()
    stream = streams(f"dns:///localhost:{first.port}", credentials=Credentials(root_ca=TLS / "ca.pem"))
    observe(stream, 0)
    (text,) = eventually(said)
    assert f"no pathwatch server at {at_another_address.address}" in text
    assert at_another_address.metadata == []
    assert first.metadata
