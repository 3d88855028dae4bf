"""What a relay costs and saves: the same observations straight to a shard and through a relay, in turns."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.scale.sender import STEP_BYTES, WINDOW_STEPS, Sender, config
from bench.scale.servers import redis_server, shard
from bench.sidecar import Sidecar
from pathwatch.v1 import run_pb2, run_pb2_grpc

_PATIENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What all turns of one way took."""

    seconds: float
    """Until the last message of each turn was acknowledged, added up."""
    shard_cpu: float
    """Until the last window was judged."""
    relay_cpu: float
    """0 without one."""
    connections: int
    """To the shard, of all ranks or of the relay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Both ways."""

    windows: int
    """Of all groups, that were sent each way."""
    sent_bytes: int
    """Routing weights that were sent each way."""
    direct: Way
    relayed: Way
    received_bytes: float
    """By the relay, whole messages."""
    forwarded_bytes: float
    """By the relay, of them."""


def relayed(folder: Path, *, turns: int, windows: int) -> Relayed:
    """So many turns of so many windows each way."""
    with (
        redis_server(folder) as redis,
        shard(folder, "shard", redis) as server,
        Sidecar(folder / "relay", options=["--upstream", server.grpc], keeps_data=False) as relay,
    ):
        entries = {"straight": server.grpc, "through": relay.grpc}
        senders = {run: Sender(run) for run in entries}
        ways: dict[str, list[Way]] = {run: [] for run in entries}
        for run, entry in entries.items():
            _create(server.grpc, run)
            # Imports, caches, and what is known from then on of the run.
            senders[run].send(entry, 1)
        for _ in range(turns):
            for run, entry in entries.items():
                ways[run].append(_turn(senders[run], run, entry, server, relay, windows * WINDOW_STEPS))
        moved = _moved(relay)
    return Relayed(
        windows=turns * windows,
        sent_bytes=turns * windows * WINDOW_STEPS * STEP_BYTES,
        direct=_all(ways["straight"]),
        relayed=_all(ways["through"]),
        received_bytes=moved["received"],
        forwarded_bytes=moved["forwarded"],
    )


def _create(address: str, run: str) -> None:
    with grpc.insecure_channel(address) as channel:
        request = run_pb2.CreateRunRequest(name=run, config=config())
        run_pb2_grpc.RunServiceStub(channel).CreateRun(request, timeout=60)


def _turn(sender: Sender, run: str, entry: str, server: Sidecar, relay: Sidecar, steps: int) -> Way:
    shard_cpu, relay_cpu, began = server.cpu_seconds, relay.cpu_seconds, time.monotonic()
    with _counted_connections(relay.pid if entry == relay.grpc else os.getpid(), server.grpc) as counts:
        last = sender.send(entry, steps)
    seconds = time.monotonic() - began
    # The first step of all was sent before: of the last window all but one step are there by now.
    _await_judged(server.grpc, run, (last + 1) // WINDOW_STEPS * WINDOW_STEPS - 1)
    return Way(
        seconds=seconds,
        shard_cpu=server.cpu_seconds - shard_cpu,
        relay_cpu=relay.cpu_seconds - relay_cpu if entry == relay.grpc else 0.0,
        connections=max(counts),
    )


def _all(turns: list[Way]) -> Way:
    return Way(
        seconds=sum(way.seconds for way in turns),
        shard_cpu=sum(way.shard_cpu for way in turns),
        relay_cpu=sum(way.relay_cpu for way in turns),
        connections=max(way.connections for way in turns),
    )


def _await_judged(address: str, run: str, step: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    with grpc.insecure_channel(address) as channel:
        runs = run_pb2_grpc.RunServiceStub(channel)
        while runs.GetRun(run_pb2.GetRunRequest(name=run), timeout=60).run.closed_step < step:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run}: step {step} is not judged within {_PATIENCE:g} seconds")
            time.sleep(0.05)


@contextmanager
def _counted_connections(pid: int, address: str) -> Iterator[list[int]]:
    """How many the process has to the address meanwhile, twice a second."""
    counts = [0]
    over = threading.Event()
    process, port = psutil.Process(pid), int(address.rpartition(":")[2])

    def count() -> None:
        while not over.wait(0.5):
            counts.append(sum(one.raddr[1:] == (port,) for one in process.net_connections("tcp")))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        yield counts
    finally:
        over.set()
        counting.join()


def _moved(relay: Sidecar) -> dict[str, float]:
    """Bytes that the relay counted, by direction."""
    with urllib.request.urlopen(f"http://{relay.http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.labels["direction"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pathwatch_relay_bytes_total"
    }
