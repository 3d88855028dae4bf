"""How long things take to start, each beside what the libraries alone take, in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import grpc

from bench.figures import Figure, Unit
from bench.sidecar import Sidecar
from pathwatch.v1 import run_pb2, run_pb2_grpc

_LIBRARIES = "import grpc, google.protobuf.descriptor_pool, google.protobuf.internal.builder"
"""What any client by gRPC has to load."""
_CLIENT = "from pathwatch.client import *"
_BARE_SERVER = """\
import asyncio, grpc, numpy

async def serve():
    server = grpc.aio.server()
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()

asyncio.run(serve())
"""


@contextmanager
def as_installed(folder: Path) -> Iterator[None]:
    """Processes started meanwhile keep bytecode, in `folder`; in a checkout it may be switched off."""
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def starts(folder: Path, *, times: int) -> Iterator[Figure]:
    """Medians of so many starts of the client, of `pathwatch --help` and of a server."""
    yield from _figures(
        "import", 0.15, times, lambda: _importing(_CLIENT), lambda: _importing(_LIBRARIES), "grpc, protobuf"
    )
    command = str(Path(sys.executable).with_name("pathwatch"))
    yield from _figures(
        "help",
        0.3,
        times,
        lambda: _running([sys.executable, command, "--help"]),
        lambda: _running([sys.executable, "-c", "import click"]),
        "an interpreter that loads click",
    )
    yield from _figures(
        "ready",
        1.5,
        times,
        lambda: _serving(folder / f"ready{time.monotonic_ns()}"),
        _serving_bare,
        "a bare grpc.aio server with NumPy",
    )


def _figures(
    what: str, aim: float, times: int, ours: Callable[[], float], bare: Callable[[], float], bare_name: str
) -> Iterator[Figure]:
    ours()  # the first makes the bytecode
    bare()
    pairs = [(ours(), bare()) for _ in range(times)]
    seconds, seconds_bare = median(one for one, _ in pairs), median(one for _, one in pairs)
    least = min(one for one, _ in pairs)
    yield Figure(
        name=f"footprint.{what}",
        value=seconds,
        unit=Unit.SECONDS,
        higher_is_better=False,
        aim=aim,
        detail=f"median of {times}, least {1000 * least:.0f} ms",
    )
    yield Figure(
        name=f"footprint.{what}.ratio",
        value=median(one / other for one, other in pairs),
        unit=Unit.RATIO,
        higher_is_better=False,
        detail=f"{1000 * seconds:.0f} ms; {bare_name}: {1000 * seconds_bare:.0f} ms",
    )


def _importing(statement: str) -> float:
    """Seconds that a fresh interpreter takes for a statement, its own start left out."""
    code = f"import time\nbegan = time.perf_counter()\n{statement}\nprint(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _running(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _serving(data: Path) -> float:
    """Until the first call is answered, the making of an empty store included."""
    began = time.perf_counter()
    with Sidecar(data) as sidecar, grpc.insecure_channel(sidecar.grpc) as channel:
        run_pb2_grpc.RunServiceStub(channel).ListRuns(run_pb2.ListRunsRequest(), timeout=60)
        return time.perf_counter() - began


def _serving_bare() -> float:
    """Until it says its port."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", _BARE_SERVER], stdout=subprocess.PIPE, text=True)
    try:
        if not (process.stdout and process.stdout.readline()):
            raise RuntimeError("the bare server did not start")
        return time.perf_counter() - began
    finally:
        process.kill()
        process.communicate()
