"""How a stream ends: bounded, whatever the server does, also when nobody closes it."""

import logging
import socket
import subprocess
import sys
import threading
import time

import pytest

from pathwatch.client import RoutingStream, attempts

BUSY_SECONDS = 15
"""How much longer an interpreter may take to end where many others want the machine, too."""


@pytest.fixture
def silent_port():
    """A port that accepts connections and says nothing, like a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_close_delivers_what_is_buffered(sidecar, observe):
    stream = RoutingStream(sidecar.address, run="run")
    for step in range(50):
        observe(stream, step)
    stream.register_checkpoint(step=49, tag="last")
    stream.close(timeout=60)
    assert len(sidecar.received("batch")) == 50
    assert [c.checkpoint.tag for c in sidecar.checkpoints] == ["last"]
    assert not stream.stats.connected


def test_close_ends_the_threads(sidecar, observe, eventually, threads_left):
    stream = RoutingStream(sidecar.address, run="run", watch=True)
    observe(stream, 1)
    assert stream.flush(60)
    eventually(lambda: sidecar.requests)
    stream.close(timeout=60)
    assert threads_left() == []


def test_close_ends_a_thread_that_has_yet_to_connect(sidecar, observe, threads_left, monkeypatch):
    open_channel, close = attempts.open_channel, attempts.Attempts.close
    looked = threading.Event()

    def open_late(*arguments, **options):
        if threading.current_thread().name == "pathwatch-signals":
            looked.wait(60)
        return open_channel(*arguments, **options)

    def close_early(self):
        close(self)
        looked.set()

    monkeypatch.setattr(attempts, "open_channel", open_late)
    monkeypatch.setattr(attempts.Attempts, "close", close_early)
    stream = RoutingStream(sidecar.address, run="run", watch=True)
    observe(stream, 1)
    assert stream.flush(60)
    stream.close(timeout=30)
    assert threads_left() == []


@pytest.mark.slow
def test_threads_that_a_hurried_close_left_are_waited_for_at_exit(sidecar):
    """Ending inside gRPC while the interpreter goes away, they could take the job's process with them."""
    script = f"""
import atexit, threading
atexit.register(lambda: print([t.name for t in threading.enumerate() if t.name.startswith("pathwatch")]))
from pathwatch.client import RoutingStream, stream as module
module._EXIT_TIMEOUT = 30.0  # it ends long before, on however busy a machine
stream = RoutingStream({sidecar.address!r}, run="run", watch=True)
while not stream.stats.connected:
    pass
hold = threading.Event()
end = stream._follower._on_end
stream._follower._on_end = lambda: (hold.wait(), end())
stream.close(0.0)
print(sorted(t.name for t in threading.enumerate() if t.name.startswith("pathwatch"))[:1])
later = threading.Timer(0.2, hold.set)
later.daemon = True  # else the interpreter would wait for it before anything else
later.start()
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert told.stdout.split("\n")[:2] == ["['pathwatch-signals']", "[]"], told.stderr


def test_after_close_nothing_happens_any_more(sidecar, observe):
    stream = RoutingStream(sidecar.address, run="run")
    stream.close(timeout=60)
    stream.close()
    observe(stream, 1)
    stream.watermark(1)
    stream.register_checkpoint(step=1, tag="x")
    assert stream.flush(60)
    assert stream.stats.buffered_bytes == 0
    assert sidecar.messages == []


def test_close_gives_a_sidecar_that_is_back_a_last_chance(sidecar, observe, eventually):
    sidecar.stop()
    stream = RoutingStream(sidecar.address, run="run")
    observe(stream, 1)
    eventually(lambda: stream.stats.last_error)
    sidecar.start()
    stream.close(timeout=60)
    assert len(sidecar.received("batch")) == 1


def test_close_does_not_wait_for_a_sidecar_that_is_gone(sidecar, observe, eventually, caplog):
    sidecar.stop()
    stream = RoutingStream(sidecar.address, run="run", watch=True)
    observe(stream, 1)
    eventually(lambda: stream.stats.last_error)
    stream.close(timeout=250)  # the test's own limit is 300
    assert "not delivered (no pathwatch server at" in warnings(caplog)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["never acknowledges", "never answers"])
def test_close_is_bounded_when_the_server_hangs(sidecar, silent_port, observe, eventually, caplog, hangs):
    sidecar.acks = False
    address = sidecar.address if hangs == "never acknowledges" else f"127.0.0.1:{silent_port}"
    stream = RoutingStream(address, run="run", watch=True)
    for step in range(100):
        observe(stream, step)
    started = time.monotonic()
    stream.close(timeout=1.0)
    assert time.monotonic() - started < 1.0 + 10  # bounded by what was asked, not by the server
    assert "bytes not delivered" in warnings(caplog)[-1]


def test_flush_says_whether_all_arrived(sidecar, streams, observe, eventually):
    sidecar.acks = False
    stream = streams(sidecar.address)
    assert stream.flush(0)
    observe(stream, 1)
    assert not stream.flush(0.2)
    sidecar.stop()
    sidecar.acks = True
    sidecar.start()
    assert stream.flush(60)


SCRIPT = """
import sys, time
import numpy as np
from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

def train():
    stream = RoutingStream(sys.argv[1], run="run", watch=True, config=run_pb2.RunConfig())
    for step in range(20):
        stream.observe(step=step, group="math", sample_ids=[1], weights=np.full((1, 2, 4), 0.25, np.float32))
        stream.watermark(step)

train()
print("trained", time.time(), flush=True)
{ending}
"""


def run_script(address: str, ending: str = "") -> tuple[subprocess.CompletedProcess[str], float]:
    """The finished process, and the seconds it took after its training was over."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=ending), address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ended = time.time()
    assert done.stdout.startswith("trained"), done.stderr
    return done, ended - float(done.stdout.split()[1])


@pytest.mark.slow
def test_a_process_that_never_closes_delivers_everything_at_exit(sidecar):
    # On a busy machine connecting may take longer than an exit may.
    done, _ = run_script(sidecar.address, "import pathwatch.client.stream as s; s._EXIT_TIMEOUT = 30.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert [w.step for w in sidecar.received("watermark")] == list(range(20))


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), [("", 0), ("raise KeyError('training broke')", 1)])
def test_a_process_exits_within_5_s_without_a_server(ending, code):
    done, seconds = run_script("127.0.0.1:1", ending)
    assert done.returncode == code
    assert seconds < 5 + BUSY_SECONDS
    assert "bytes not delivered" in done.stderr  # why, only where it has been found out by then
    assert ("training broke" in done.stderr) == bool(code)


@pytest.mark.slow
def test_a_process_exits_within_5_s_when_the_server_hangs(silent_port):
    done, seconds = run_script(f"127.0.0.1:{silent_port}")
    assert done.returncode == 0
    assert seconds < 5 + BUSY_SECONDS


def test_no_call_is_left_to_the_end_of_the_interpreter():
    """Collected there it takes its lock, and the thread that holds it may have been stopped: a hang."""
    script = """
import atexit, gc, time
def count_calls():
    print(sum(issubclass(type(one), grpc.Call) for one in gc.get_objects()))
atexit.register(count_calls)  # the first to register is the last to run
gc.disable()
import grpc
from pathwatch.client import RoutingStream
stream = RoutingStream("127.0.0.1:1", run="run", watch=True)
while not stream.stats.last_error:
    time.sleep(0.01)
stream.close(0.1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "0\n"


def test_a_stream_that_is_closed_does_not_come_back(sidecar, streams, observe, monkeypatch):
    monkeypatch.setattr("pathwatch.client.reconnect._FIRST_DELAY", 0.0)  # however short, it was a good life
    for life in range(40):
        stream = streams(sidecar.address, session=f"life-{life}", watch=True)
        observe(stream, step=life)
        stream.close(60)
    assert len(sidecar.hellos) == 40
