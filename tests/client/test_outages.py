"""Outages of a real server: what is still buffered when it is back arrives, whole and bit for bit."""

import threading

import numpy as np
import pytest
from chaos_proxy import ChaosProxy
from server_process import ServerProcess

from pathwatch.client import Client, RoutingStream, attempts, channel, from_tensor, reconnect
from pathwatch.v1 import run_pb2

LAYERS, EXPERTS, SAMPLES = 3, 8, 5
CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
    mode=run_pb2.OBSERVATION_MODE_PROBE,
    keep_observations=True,
    grace_seconds=600,
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Frozen peers are noticed within seconds, and waits end soon."""
    options = dict(channel._OPTIONS) | {"grpc.keepalive_time_ms": 1000}
    monkeypatch.setattr(channel, "_OPTIONS", tuple(options.items()))
    monkeypatch.setattr(attempts, "PING_SECONDS", 1.0)
    monkeypatch.setattr(reconnect, "_LONGEST_DELAY", 1.0)


@pytest.fixture
def server(tmp_path):
    process = ServerProcess(tmp_path / "data")
    yield process
    process.kill()


@pytest.fixture
def network(server):
    with ChaosProxy(server.address) as proxy:
        yield proxy


def observed(step):
    """What is sent at a step: weights to every bit different from those of other steps."""
    rng = np.random.default_rng(step)
    return {
        "weights": rng.dirichlet(np.ones(EXPERTS), size=(SAMPLES, LAYERS)).astype(np.float32),
        "losses": rng.random(SAMPLES, np.float32),
    }


def send(stream, steps):
    for step in steps:
        stream.observe(step=step, group="math", sample_ids=np.arange(SAMPLES), **observed(step))
        stream.watermark(step)


def stored(address):
    """Step → what the server kept of it."""
    with Client(address, timeout=60) as client:
        client.finish_run("run")
        rounds = list(client.get_observations("run"))
    result = {}
    for kept in rounds:
        for group in kept.groups:
            assert not group.partial
            assert from_tensor(group.sample_ids).tolist() == list(range(SAMPLES))
            result[kept.step] = {
                "weights": from_tensor(group.weights).astype(np.float32),
                "losses": from_tensor(group.losses).astype(np.float32),
            }
    return result


def check(address, steps):
    """The server holds these steps and no others, to the bit."""
    held = stored(address)
    assert sorted(held) == sorted(steps)
    for step, arrays in held.items():
        for name, values in observed(step).items():
            assert arrays[name].tobytes() == values.tobytes(), (step, name)


def freeze(server, network):
    server.freeze()
    return server.thaw


def kill(server, network):
    server.kill()
    return server.start


def stall(server, network):
    network.stall()
    return network.resume


def refuse(server, network):
    network.refuse()
    network.cut()
    return network.accept


def throttle(server, network):
    network.delay(0.2)
    network.throttle(2_000)

    def free():
        network.delay(0)
        network.throttle(None)

    return free


@pytest.mark.slow
@pytest.mark.parametrize("begin", [freeze, kill, stall, refuse, throttle], ids=lambda begin: begin.__name__)
def test_everything_arrives_after_an_outage(server, network, eventually, begin):
    stream = RoutingStream(network.address, run="run", config=CONFIG)
    try:
        send(stream, range(20))
        assert stream.flush(60)
        end = begin(server, network)
        send(stream, range(20, 60))
        if begin is not throttle:
            eventually(lambda: not stream.stats.connected)
            send(stream, range(60, 80))
        else:
            send(stream, range(60, 80))
        assert not stream.flush(0)
        end()
        assert stream.flush(60)
        assert stream.stats.dropped_steps == stream.stats.rejected == 0
    finally:
        stream.close(1.0)
    check(server.address, range(80))


@pytest.mark.robustness
def test_everything_arrives_through_freezes_kills_cuts_and_stalls_in_turn(server, network, eventually):
    """While all that happens a thread trains on."""
    stream = RoutingStream(network.address, run="run", config=CONFIG)
    over, steps = threading.Event(), 0

    def train() -> None:
        nonlocal steps
        while not over.is_set():
            send(stream, [steps])
            steps += 1
            over.wait(0.05)

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        for begin in (freeze, refuse, kill, stall):
            before = stream.stats.acked
            eventually(lambda before=before: stream.stats.acked > before)
            end = begin(server, network)
            over.wait(2.0)
            end()
    finally:
        over.set()
        trainer.join()
    assert stream.flush(60)
    stats = stream.stats
    stream.close(1.0)
    assert stats.dropped_steps == stats.rejected == 0
    check(server.address, range(steps))


@pytest.mark.slow
def test_after_an_outage_longer_than_memory_all_newer_steps_arrive(server, network, eventually):
    stream = RoutingStream(network.address, run="run", config=CONFIG, buffer_bytes=100_000)
    try:
        send(stream, range(10))
        assert stream.flush(60)
        server.freeze()
        send(stream, [10])
        eventually(lambda: not stream.stats.connected)
        send(stream, range(11, 200))
        stats = stream.stats
        assert stats.buffered_bytes <= 100_000
        assert 0 < stats.dropped_steps < 189
        server.thaw()
        assert stream.flush(60)
    finally:
        stream.close(1.0)
    # What was under way when the server froze may have arrived, though it counts as dropped.
    held = stored(server.address)
    first_kept = 200 - (190 - stats.dropped_steps)
    assert set(range(first_kept, 200)) <= set(held)
    assert set(held) <= {*range(11), *range(first_kept, 200)}
