"""The synchronous client among several servers of which one has the run."""

import threading

import grpc
import pytest

from pathwatch.client import Client, PathwatchError, routed_calls
from pathwatch.v1 import run_pb2, signal_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
FOREVER = 10_000.0
"""Seconds that no test lasts: what depends on a call's timeout hangs."""


@pytest.fixture
def client(sidecars):
    with Client(",".join(sidecar.address for sidecar in sidecars), timeout=FOREVER) as connected:
        yield connected


def test_the_owner_is_followed_and_asked_first_from_then_on(client, sidecars):
    first, second, owner = sidecars
    first.owner = second.owner = owner.address
    assert client.create_run("run", CONFIG).config == CONFIG
    assert client.get_run("run").name == "run"
    client.register_checkpoint("run", step=1)
    assert [len(sidecar.requests) for sidecar in sidecars] == [1, 0, 3]


def test_a_lone_server_may_name_another(sidecars):
    first, second, _ = sidecars
    first.owner = second.address
    with Client(first.address, timeout=FOREVER) as client:
        assert client.create_run("run", CONFIG).name == "run"
        second.stop()
        first.owner = None  # it takes the run over
        assert client.create_run("run", CONFIG).name == "run"


def test_of_servers_that_are_away_the_next_answers(client, sidecars):
    for sidecar in sidecars[:2]:
        sidecar.stop()
    assert client.create_run("run", CONFIG).name == "run"
    assert [run.name for run in client.list_runs()] == ["run"]


def test_where_nobody_answers_all_are_named_at_once(client, sidecars):
    for sidecar in sidecars:
        sidecar.stop()
    with pytest.raises(PathwatchError) as raised:
        client.get_run("run")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    text = str(raised.value)
    assert text.startswith(f"no pathwatch server at {sidecars[2].address} (")
    assert text.endswith("; tried " + ", ".join(sidecar.address for sidecar in sidecars))
    assert "\n" not in text


@pytest.mark.slow
def test_while_a_run_is_taken_over_it_is_waited_for(client, sidecars, eventually):
    first, second, owner = sidecars
    owner.stop()
    first.owner = second.owner = owner.address

    def take_over():
        eventually(lambda: len(second.requests) >= 2)
        second.owner = None

    other = threading.Thread(target=take_over)
    other.start()
    assert client.create_run("run", CONFIG).name == "run"
    other.join()
    assert second.configs


@pytest.mark.slow
def test_a_lone_server_is_waited_for_while_the_run_moves(sidecar, eventually):
    """As behind a relay, which names nobody."""
    sidecar.owner = ""

    def take_over():
        eventually(lambda: len(sidecar.requests) >= 2)
        sidecar.owner = None

    other = threading.Thread(target=take_over)
    other.start()
    with Client(sidecar.address, timeout=FOREVER) as client:
        assert client.create_run("run", CONFIG).name == "run"
    other.join()


def test_a_run_that_nobody_takes_over_is_not_waited_for_for_ever(sidecars, monkeypatch):
    monkeypatch.setattr(routed_calls, "_PATIENCE", 1.5)
    first, second, owner = sidecars
    owner.stop()
    first.owner = second.owner = owner.address
    with (
        Client(f"{first.address},{second.address}", timeout=FOREVER) as client,
        pytest.raises(PathwatchError) as raised,
    ):
        client.get_run("run")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert owner.address in str(raised.value)


@pytest.mark.slow
def test_a_run_that_nobody_takes_over_ends_the_call_with_its_timeout(sidecars):
    first, second, owner = sidecars
    owner.stop()
    first.owner = second.owner = owner.address
    with (
        Client(f"{first.address},{second.address}", timeout=1.5) as client,
        pytest.raises(PathwatchError) as raised,
    ):
        client.get_run("run")
    # The second where it ends in the midst of asking.
    assert raised.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.slow
def test_servers_that_name_one_another_do_not_hold_a_call_for_ever(sidecars, monkeypatch):
    monkeypatch.setattr(routed_calls, "_PATIENCE", 1.5)
    first, second, _ = sidecars
    first.owner, second.owner = second.address, first.address
    with (
        Client(f"{first.address},{second.address}", timeout=FOREVER) as client,
        pytest.raises(PathwatchError, match="is served by") as raised,
    ):
        client.get_run("run")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_refusal_is_final(client, sidecars):
    with pytest.raises(PathwatchError, match=r"^no run 'lost'$") as raised:
        client.get_run("lost")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND
    assert sum(len(sidecar.requests) for sidecar in sidecars) == 1


@pytest.mark.parametrize("ends", ["dies", "moves"])
def test_watching_goes_on_where_another_server_takes_the_run(client, sidecars, ends):
    first, second, _ = sidecars
    first.give(signal_pb2.Signal(run="run", revision=1))
    signals = client.watch_signals("run", timeout=FOREVER)
    assert next(signals).revision == 1
    second.give(signal_pb2.Signal(run="run", revision=2))
    first.stop() if ends == "dies" else first.move(second.address)
    assert next(signals).revision == 2
    client.create_run("run", CONFIG)
    client.finish_run("run")
    second.give(signal_pb2.Signal(run="run", revision=3))
    assert [signal.revision for signal in signals] == [3]


@pytest.mark.parametrize("moves", [False, True])
def test_watches_that_break_off_again_and_again_are_begun_ever_more_seldom(sidecars, monkeypatch, moves):
    first, second, third = sidecars
    waits = []

    def wait(_, most):
        waits.append(most)
        if len(waits) == 4:
            for sidecar in sidecars:
                sidecar.watches_end = None
                sidecar.give(signal_pb2.Signal(run="run", revision=2))
        return 0.0

    monkeypatch.setattr(routed_calls, "between", wait)
    monkeypatch.setattr(routed_calls, "_LONGEST_WAIT", FOREVER)  # so that no watch counts for a long one
    for sidecar, names in ((first, second), (second, first), (third, first)):
        sidecar.watches_end = names.address if moves else ""
        sidecar.give(signal_pb2.Signal(run="run", revision=1))
    with Client(",".join(sidecar.address for sidecar in sidecars)) as client:
        signals = client.watch_signals("run", timeout=60)
        assert [next(signals).revision for _ in range(2)] == [1, 2]
    assert waits == sorted(set(waits))
    assert sum(len(sidecar.requests) for sidecar in sidecars) <= len(waits) + 2


def test_a_watch_stays_connected_whatever_other_servers_come_and_go(tmp_path, sidecar):
    path = tmp_path / "shards"
    path.write_text(sidecar.address)
    sidecar.give(signal_pb2.Signal(run="run", revision=1))
    with Client(f"file://{path}", timeout=FOREVER) as client:
        signals = client.watch_signals("run")
        assert next(signals).revision == 1
        for port in range(1, 51):
            path.write_text(f"127.0.0.2:{port}")
            with pytest.raises(PathwatchError, match="no pathwatch server"):
                client.get_run("other")
        sidecar.give(signal_pb2.Signal(run="run", revision=2))
        assert next(signals).revision == 2
        assert len(sidecar.requests) == 1


def test_watching_ends_with_an_error_where_no_server_is_left(client, sidecars):
    sidecars[0].give(signal_pb2.Signal(run="run", revision=1))
    signals = client.watch_signals("run")
    assert next(signals).revision == 1
    for sidecar in sidecars:
        sidecar.stop()
    with pytest.raises(PathwatchError, match="no pathwatch server at") as raised:
        next(signals)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_an_owner_in_the_clear_off_this_machine_is_not_asked(client, sidecars):
    sidecars[0].owner = "10.1.2.3:50051"
    with pytest.raises(PathwatchError, match=r"refusing plaintext to 10\.1\.2\.3:50051"):
        client.get_run("run")


@pytest.mark.slow
def test_one_server_of_several_is_enough_to_be_ready(client, sidecars):
    for sidecar in sidecars:
        sidecar.stop()
    with pytest.raises(PathwatchError) as raised:
        client.wait_ready(0.3)
    assert all(sidecar.address in str(raised.value) for sidecar in sidecars)
    starter = threading.Timer(0.2, sidecars[2].start)
    starter.start()
    client.wait_ready(60)
    starter.join()
    assert list(client.list_runs()) == []


def test_a_file_of_servers_that_is_not_there_is_said_at_once(tmp_path, sidecars):
    path = tmp_path / "shards"
    with Client(f"file://{path}", timeout=FOREVER) as client:
        with pytest.raises(PathwatchError, match=f"file of servers {path}: No such file"):
            client.list_runs()
        with pytest.raises(PathwatchError, match=f"no pathwatch server at file://{path}"):
            client.wait_ready(0.2)
        path.write_text(sidecars[1].address)
        assert list(client.list_runs()) == []


@pytest.mark.parametrize("server", ["a:1,b", "dns:///b", "file://b"])
def test_what_names_no_servers_is_refused_at_once(server):
    with pytest.raises(PathwatchError) as raised:
        Client(server)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_closed_client_says_so(client):
    client.close()
    with pytest.raises(PathwatchError, match="closed"):
        client.get_run("run")
