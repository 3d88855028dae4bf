"""Whatever the sidecar does, or does not: a job trains on, within its memory, and ends in time."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import training
from chaos_proxy import ChaosProxy
from server_process import ServerProcess

pytestmark = pytest.mark.robustness

AMPLE = 64 << 20
"""Bytes of a buffer that a busy machine's server does not let run full."""
EXIT_SECONDS = 5.0 + 15.0
"""What is promised, and what interpreters may take to end where many others want the machine, too."""
STILL = 4.0
"""Seconds: a call that takes longer waits for something, on however busy a machine."""
BLANK = re.compile(r"^(?:[IWE]\d{4} .*|WARNING: All log messages before absl.*)$", re.MULTILINE)
"""What gRPC's core logs by itself."""


@contextlib.contextmanager
def absent(_):
    yield "127.0.0.1:1"


@contextlib.contextmanager
def name_unknown(_):
    yield "no-such-host.invalid:50051"


@contextlib.contextmanager
def black_hole(_):
    """Connection requests are dropped without a word: the listener's queue is full."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield "{}:{}".format(*full.getsockname())


@contextlib.contextmanager
def silent(_):
    """Connections are taken, nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield "{}:{}".format(*listening.getsockname())


@contextlib.contextmanager
def frozen(folder):
    server = ServerProcess(folder)
    server.freeze()
    try:
        yield server.address
    finally:
        server.kill()


@contextlib.contextmanager
def half_open(folder):
    """A network that forwards nothing any more once data is on its way; connections stay."""
    server = ServerProcess(folder)
    try:
        with ChaosProxy(server.address) as proxy:
            stalling = threading.Thread(target=stall_later, args=(proxy,))
            stalling.start()
            yield proxy.address
            stalling.join()
    finally:
        server.kill()


def stall_later(proxy):
    proxy.wait_for(lambda proxy: proxy.bytes_up > 100_000)
    proxy.stall()


@contextlib.contextmanager
def reset(folder):
    """A network that resets all connections once data is on its way."""
    server = ServerProcess(folder)
    try:
        with ChaosProxy(server.address) as proxy:
            proxy.cut_after(100_000)
            yield proxy.address
    finally:
        server.kill()


@contextlib.contextmanager
def slow(folder):
    server = ServerProcess(folder)
    try:
        with ChaosProxy(server.address) as proxy:
            proxy.delay(0.3)
            proxy.throttle(20_000)
            yield proxy.address
    finally:
        server.kill()


@contextlib.contextmanager
def present(folder):
    server = ServerProcess(folder)
    try:
        yield server.address
    finally:
        server.kill()


CONDITIONS = (absent, name_unknown, black_hole, silent, frozen, half_open, reset, slow, present)
LASTING = (absent, name_unknown, black_hole, silent, frozen)
"""Nothing is ever delivered."""


def run_all(address, buffer=training.BUFFER):
    """A job for every ending, all at once: what each said, its stderr, exit code, and seconds to its end."""
    jobs = {
        ending: subprocess.Popen(
            [sys.executable, training.__file__, address, ending, "--buffer", str(buffer)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ending in training.ENDINGS
    }
    ends: dict[str, float] = {}
    deadline = time.monotonic() + 100
    while len(ends) < len(jobs) and time.monotonic() < deadline:
        ends |= {e: time.time() for e, job in jobs.items() if e not in ends and job.poll() is not None}
        time.sleep(0.01)
    results = {}
    for ending, job in jobs.items():
        if ending not in ends:
            job.kill()
        said, complaints = job.communicate()
        assert ending in ends, f"{ending!r} did not end; it said {said!r} and {complaints!r}"
        assert said, complaints
        told = json.loads(said)
        results[ending] = told, complaints, job.returncode, ends[ending] - told["ended"]
    return results


def check_all(results, buffer=training.BUFFER):
    for ending, (told, complaints, code, seconds) in results.items():
        assert code == training.CODES.get(ending, 0), (ending, complaints)
        assert seconds < EXIT_SECONDS, ending
        assert told["longest"] < STILL, ending
        assert told["buffered"] <= buffer, ending
        assert told["dropped_observations"] == 4 * told["dropped_steps"], ending
        complaints = BLANK.sub("", complaints).strip()
        if ending == "raise":
            assert complaints.count("Traceback") == 1, complaints
            assert complaints.endswith("KeyError: 'training broke'"), complaints
        else:
            assert complaints == "", ending


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.__name__)
def test_a_job_trains_on_and_ends_in_time(condition, tmp_path: Path):
    with condition(tmp_path) as address:
        buffer = AMPLE if condition is present else training.BUFFER
        results = run_all(address, buffer)
    check_all(results, buffer)
    if condition in LASTING:
        assert all(told["dropped_steps"] > 100 for told, *_ in results.values())
    if condition is present:
        assert all(told["dropped_steps"] == 0 for told, *_ in results.values())


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAVAILABLE,
    ],
    ids=lambda code: code.name,
)
def test_a_job_that_is_refused_trains_on_and_ends_in_time(sidecar, code):
    sidecar.refusal = (code, "not now")
    check_all(run_all(sidecar.address))
    assert sidecar.messages == []
