"""The synchronous client against a real server."""

import threading
from concurrent import futures

import grpc
import pytest

from pathwatch.client import Client, PathwatchError
from pathwatch.v1 import run_pb2, signal_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))


@pytest.fixture
def client(sidecar):
    with Client(sidecar.address) as connected:
        yield connected


def test_run_life(client):
    created = client.create_run("run", CONFIG, attempt=1)
    assert (created.name, created.attempt, created.config) == ("run", 1, CONFIG)
    assert client.get_run("run") == created
    assert [run.name for run in client.list_runs()] == ["run"]
    assert client.finish_run("run").state == run_pb2.RUN_STATE_FINISHED
    client.delete_run("run")
    assert list(client.list_runs()) == []


def test_validate_returns_the_violations(client):
    assert list(client.validate_run("run", CONFIG)) == []
    assert [v.field for v in client.validate_run("run", run_pb2.RunConfig())] == ["config.topology"]


def test_checkpoints_are_registered_and_ranked(client, sidecar):
    for step in (1, 2, 3):
        client.register_checkpoint("run", step=step, tag=f"step-{step}", attempt=2)
    assert sidecar.checkpoints[0].checkpoint == run_pb2.Checkpoint(step=1, tag="step-1", attempt=2)
    ranked = client.rank_checkpoints("run", group="math", limit=2)
    assert [entry.checkpoint.step for entry in ranked] == [3, 2]
    assert sidecar.requests[-1].group == "math"


def test_signal_and_history(client, sidecar):
    sidecar.give(signal_pb2.Signal(run="run", step=7, action=signal_pb2.ACTION_STOP, stop_at_step=12))
    assert client.get_signal("run").stop_at_step == 12
    history = client.get_metrics("run", after_step=1, group="math", limit=2)
    assert [window.step for window in history.windows] == [2, 3]
    assert history.closed_step == 4
    assert len(client.get_metrics("run").windows) == 5


def test_watching_yields_changes_and_ends_with_the_run(client, sidecar):
    client.create_run("run", CONFIG)
    sidecar.give(signal_pb2.Signal(run="run", step=1, revision=1))
    signals = client.watch_signals("run")
    assert next(signals).revision == 1
    sidecar.give(signal_pb2.Signal(run="run", step=2, revision=2))
    assert next(signals).revision == 2
    client.finish_run("run")
    sidecar.give(signal_pb2.Signal(run="run", step=3, revision=3))
    assert [signal.revision for signal in signals] == [3]


def test_watching_ends_quietly_at_its_deadline(client, sidecar, eventually):
    sidecar.give(signal_pb2.Signal(run="run", revision=1))
    # On a busy machine the deadline may pass before the first signal.
    eventually(lambda: [signal.revision for signal in client.watch_signals("run", timeout=0.3)] == [1])


def test_watching_a_server_that_dies_raises(client, sidecar):
    sidecar.give(signal_pb2.Signal(run="run", revision=1))
    signals = client.watch_signals("run")
    next(signals)
    sidecar.stop()
    with pytest.raises(PathwatchError) as raised:
        next(signals)
    assert raised.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_the_server_s_own_words_come_through(client):
    with pytest.raises(PathwatchError, match=r"^no run 'lost'$") as raised:
        client.get_run("lost")
    assert raised.value.code is grpc.StatusCode.NOT_FOUND


CALLS = [
    lambda client: client.validate_run("run", CONFIG),
    lambda client: client.create_run("run", CONFIG),
    lambda client: client.get_run("run"),
    lambda client: client.list_runs(),
    lambda client: client.finish_run("run"),
    lambda client: client.delete_run("run"),
    lambda client: client.register_checkpoint("run", step=1),
    lambda client: client.rank_checkpoints("run"),
    lambda client: client.get_signal("run"),
    lambda client: next(client.watch_signals("run")),
    lambda client: client.get_metrics("run"),
    lambda client: client.wait_ready(0.3),
]


@pytest.mark.parametrize("call", CALLS)
def test_no_server_is_one_clear_line(call, sidecar):
    sidecar.stop()
    with Client(sidecar.address) as client, pytest.raises(PathwatchError) as raised:
        call(client)
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    text = str(raised.value)
    assert text.startswith(f"no pathwatch server at {sidecar.address} (")
    assert "\n" not in text


def test_a_server_that_does_not_answer_is_given_up_on():
    listening = grpc.server(None)
    port = listening.add_insecure_port("127.0.0.1:0")  # accepts connections; no one will ever answer
    with Client(f"127.0.0.1:{port}", timeout=0.3) as client, pytest.raises(PathwatchError) as raised:
        client.list_runs()
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(raised.value) == f"pathwatch server at 127.0.0.1:{port} did not answer within 0.3 s"


def test_another_service_is_recognised():
    other = grpc.server(futures.ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    with (
        Client(f"127.0.0.1:{port}") as client,
        pytest.raises(PathwatchError, match=r"does not speak pathwatch\.v1"),
    ):
        client.list_runs()
    other.stop(None).wait()


@pytest.mark.slow
def test_wait_ready_waits_for_a_server_that_comes_later(sidecar):
    sidecar.stop()
    with Client(sidecar.address) as client:
        starter = threading.Timer(0.2, sidecar.start)
        starter.start()
        client.wait_ready(60)
        starter.join()
        assert list(client.list_runs()) == []


def test_a_closed_client_says_so(sidecar):
    client = Client(sidecar.address)
    client.close()
    with pytest.raises(PathwatchError, match="closed"):
        client.list_runs()
    with pytest.raises(PathwatchError, match="closed"):
        next(client.watch_signals("run"))
