"""What a relay costs and saves: the same ranks straight to a shard and through a relay, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.ingest.generator import Block, Sent
from bench.ingest.workloads import Workload
from bench.overload.messages import topology
from bench.scale.servers import redis_server, shard
from bench.sidecar import Sidecar
from pathwatch.v1 import run_pb2, run_pb2_grpc

WORKLOAD = Workload(name="relayed", samples=64, in_flight=8, window_steps=32, fixed_set=False)
"""Every sample is new; a window sees 16,384 of each of 8 groups and keeps 512. Ranks hold nothing back."""
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What ranks sent one way, and what that took. Bytes are those of routing weights."""

    sent_bytes: int
    seconds: float
    shard_cpu: float
    relay_cpu: float
    """0 without one."""
    connections: int
    """To the shard, of ranks or of relays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Turns of both ways; those of one number ran one after the other."""

    direct: tuple[Way, ...]
    relayed: tuple[Way, ...]
    received_bytes: float
    """By the relay, of whole messages."""
    forwarded_bytes: float
    """By the relay, of them."""


def relayed(folder: Path, *, turns: int, seconds: float) -> Relayed:
    """So many turns of so many seconds each way."""
    with redis_server(folder) as redis, shard(folder, "shard", redis) as server:
        upstream = ["--upstream", server.grpc]
        with Sidecar(folder / "relay", options=upstream, keeps_data=False) as relay:
            straight: list[Way] = []
            through: list[Way] = []
            steps = {"straight": 0, "through": 0}
            for run in steps:
                _create(server.grpc, run)
            for _ in range(turns):
                for run, entry, ways in (("straight", server, straight), ("through", relay, through)):
                    block = Block(
                        address=entry.grpc,
                        run=run,
                        workload=WORKLOAD,
                        first_step=steps[run],
                        seconds=seconds,
                    )
                    way, steps[run] = _send(block, server, relay)
                    ways.append(way)
            moved = _moved(relay)
    return Relayed(
        direct=tuple(straight),
        relayed=tuple(through),
        received_bytes=moved["received"],
        forwarded_bytes=moved["forwarded"],
    )


def _create(address: str, run: str) -> None:
    config = run_pb2.RunConfig(
        topology=topology(),
        mode=run_pb2.OBSERVATION_MODE_STREAM,
        window_steps=WORKLOAD.window_steps,
    )
    with grpc.insecure_channel(address) as channel:
        request = run_pb2.CreateRunRequest(name=run, config=config)
        run_pb2_grpc.RunServiceStub(channel).CreateRun(request, timeout=60)


def _send(block: Block, server: Sidecar, relay: Sidecar) -> tuple[Way, int]:
    """One block, and the step after its last."""
    before = server.cpu_seconds, relay.cpu_seconds
    command = [sys.executable, "-m", "bench.ingest.generator", json.dumps(asdict(block))]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as sender:
        connections = 0
        while True:
            connections = max(connections, _connections(server))
            try:
                said, _ = sender.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                continue
    if sender.returncode:
        raise RuntimeError(f"the sender ended with status {sender.returncode}")
    sent = Sent(**json.loads(said))
    if sent.rejected or sent.late:
        raise RuntimeError(f"{sent.rejected} messages refused, {sent.late} observations late")
    batches = len(WORKLOAD.groups(0))  # and a watermark, in each step
    way = Way(
        sent_bytes=sent.all_messages * batches // (batches + 1) * WORKLOAD.weight_bytes,
        seconds=sent.seconds * sent.all_messages / max(1, sent.messages),
        shard_cpu=server.cpu_seconds - before[0],
        relay_cpu=relay.cpu_seconds - before[1] if block.address == relay.grpc else 0.0,
        connections=connections,
    )
    return way, sent.next_step


def _connections(server: Sidecar) -> int:
    port = int(server.grpc.rpartition(":")[2])
    return sum(
        1
        for one in psutil.Process(server.pid).net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
    )


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
