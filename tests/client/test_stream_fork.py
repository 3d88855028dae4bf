"""Forked children, as DataLoader workers are: the stream is inert there and undisturbed in the parent."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np


def use_everything(stream, results):
    weights = np.full((2, 2, 4), 0.25, np.float32)
    for step in range(1000, 1100):
        stream.observe(step=step, group="math", sample_ids=[1, 2], weights=weights)
        stream.watermark(step)
    stream.geometry(
        step=1000, gram_self=np.ones((2, 4, 4), np.float32), gram_next=np.ones((1, 4, 4), np.float32)
    )
    stream.register_checkpoint(step=1000, tag="child")
    results.put((stream.flush(60), stream.stats.buffered_bytes, stream.stats.connected))
    stream.close(60)


def children(stream, count):
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    started = [context.Process(target=use_everything, args=(stream, results)) for _ in range(count)]
    for child in started:
        child.start()
    for child in started:
        child.join(60)
        assert child.exitcode == 0
    return [results.get() for _ in started]


def test_children_neither_hang_nor_send(sidecar, streams, observe):
    stream = streams(sidecar.address, watch=True)
    observe(stream, 1)
    assert stream.flush(60)
    assert children(stream, 3) == [(True, 0, False)] * 3
    observe(stream, 2)
    stream.watermark(2)
    assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == [1, 2]
    assert sidecar.checkpoints == []
    assert stream.stats.reconnects == 0


def test_children_forked_while_the_stream_is_busy(sidecar, streams, observe):
    """A lock held by another thread at the moment of the fork stays held in the child for ever."""
    stream = streams(sidecar.address)
    over = threading.Event()
    steps = 0

    def train() -> None:
        nonlocal steps
        while not over.is_set():
            observe(stream, steps, n=50)
            steps += 1
            stream.flush(0.001)

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        for _ in range(5):
            children(stream, 2)
    finally:
        over.set()
        trainer.join()
    assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == list(range(steps))


def test_children_forked_while_the_sidecar_is_away(sidecar, streams, observe, eventually):
    sidecar.stop()
    stream = streams(sidecar.address)
    observe(stream, 1)
    eventually(lambda: stream.stats.last_error)
    assert children(stream, 2) == [(True, 0, False)] * 2
    sidecar.start()
    assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == [1]


SCRIPT = """
import os, sys
import numpy as np
from pathwatch.client import RoutingStream

stream = RoutingStream(sys.argv[1], run="run", watch=True)
weights = np.full((1, 2, 4), 0.25, np.float32)
stream.observe(step=1, group="math", sample_ids=[1], weights=weights)
assert stream.flush(60)
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    stream.observe(step=2, group="math", sample_ids=[1], weights=weights)
    assert stream.flush(60)
    sys.exit(os.waitstatus_to_exitcode(status))
stream.observe(step=3, group="math", sample_ids=[1], weights=weights)
# and the child ends as every interpreter does: atexit, threads joined, modules taken down
"""


def test_a_plain_fork_ends_cleanly_in_both(sidecar):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, sidecar.address], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [batch.step for batch in sidecar.received("batch")] == [1, 2]


CALLING = """
import os, sys
from concurrent import futures
from pathwatch.client import RoutingStream
import grpc

server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    grpc.channel_ready_future(channel).result(30)
    for _ in range(3):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
os._exit(0)
"""


def test_grpc_does_nothing_of_its_own_when_a_process_forks():
    """It says so on stderr where its handlers are on, which abort children now and then."""
    done = subprocess.run([sys.executable, "-c", CALLING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


HELD = """
import os, sys
from pathwatch.client import RoutingStream

stream = RoutingStream("127.0.0.1:1", run="run", watch=True)
locks = [thread._stop._cond for thread in (stream._sender, stream._follower)]
for lock in locks:  # as a thread that is just then in there
    lock.acquire()
child = os.fork()
if child:
    for lock in locks:
        lock.release()
    _, status = os.waitpid(child, 0)
    stream.close(0.1)
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_child_ends_though_locks_were_held_when_it_was_forked():
    with subprocess.Popen([sys.executable, "-c", HELD], start_new_session=True) as process:
        try:
            assert process.wait(120) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
