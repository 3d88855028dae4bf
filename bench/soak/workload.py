"""Ranks that use a server in every way there is: `python -m bench.soak.workload ADDRESS NUMBER --seconds S`.

Runs are created, sent to as fast as the server takes it, asked about, finished and deleted in turn. Messages
are of all kinds: float16 and float32 weights, target weights, raw scores, fragments, geometries, checkpoints,
and wrong ones. Ranks leave without a word, and come back as new processes would.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import grpc
import numpy as np

from bench.overload.messages import EXPERTS, LAYERS, batch, topology
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
    tensor_pb2,
)

STEPS = 6
"""Steps of a run."""
RANKS = 2
SAMPLES = 64
CAPACITY = 32
"""Of the observations most are beyond it, so that the server receives more than it computes."""
CALL_SECONDS = 600.0
"""A call may wait for all rounds before it."""
KEPT_RUNS = 1
"""Finished runs that a process leaves before it deletes the oldest."""


def payloads(rank: int, step: int) -> Iterator[routing_pb2.StreamRoutingRequest]:
    """What a rank sends of a step."""
    first = rank * SAMPLES

    def observations(group: str, **changes: object) -> routing_pb2.StreamRoutingRequest:
        one = batch(group, n=SAMPLES, first_id=first, loss=4.0 / (1 + step))
        one.step = step
        for name, value in changes.items():
            getattr(one, name).CopyFrom(value)
        return routing_pb2.StreamRoutingRequest(batch=one)

    yield observations("half")
    weights_NLK = np.full((SAMPLES, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
    yield observations("single", weights=to_tensor(weights_NLK))
    yield observations("targets", target_weights=to_tensor(weights_NLK))
    raw = observations("raw")
    raw.batch.raw.CopyFrom(
        routing_pb2.RawScores(
            kind=routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
            scores=to_tensor(np.zeros((2 * SAMPLES, LAYERS, EXPERTS), np.float16)),
            lengths=to_tensor(np.full(SAMPLES, 2, np.int32)),
        )
    )
    yield raw
    part = observations("parts")
    part.batch.sample_ids.CopyFrom(
        to_tensor(np.arange(SAMPLES))
    )  # both ranks hold a part of the same samples
    part.batch.fragment.token_part, part.batch.fragment.token_parts = rank, RANKS
    yield part
    wrong = observations("half")
    wrong.batch.weights.CopyFrom(to_tensor(np.full((SAMPLES, LAYERS, EXPERTS), np.nan, np.float32)))
    yield wrong
    yield observations("half", losses=tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[2**31]))
    if rank == 0:
        gram = np.tile(np.eye(EXPERTS, dtype=np.float32), (LAYERS, 1, 1))
        yield routing_pb2.StreamRoutingRequest(
            geometry=routing_pb2.ExpertGeometry(
                step=step, gram_self=to_tensor(gram), gram_next=to_tensor(gram[1:])
            )
        )
    yield routing_pb2.StreamRoutingRequest(watermark=routing_pb2.Watermark(step=step))


class Job:
    """One run from its creation to its end."""

    def __init__(self, channel: grpc.Channel, name: str, counts: Counter[str]) -> None:
        self._routing = routing_pb2_grpc.RoutingServiceStub(channel)
        self._runs = run_pb2_grpc.RunServiceStub(channel)
        self._signals = signal_pb2_grpc.SignalServiceStub(channel)
        self._name = name
        self._counts = counts

    def live(self) -> None:
        """All of it; errors of the server's are counted."""
        config = run_pb2.RunConfig(topology=topology(), capacity=CAPACITY)
        create = run_pb2.CreateRunRequest(name=self._name, config=config)
        self._runs.CreateRun(create, timeout=CALL_SECONDS)
        watch = self._signals.WatchSignals(
            signal_pb2.WatchSignalsRequest(run=self._name), timeout=CALL_SECONDS
        )
        ranks = [threading.Thread(target=self._send, args=(rank,)) for rank in range(RANKS)]
        watcher = threading.Thread(target=self._drain, args=(watch,))
        for thread in (watcher, *ranks):
            thread.start()
        for thread in ranks:
            thread.join()
        self._runs.RankCheckpoints(run_pb2.RankCheckpointsRequest(run=self._name), timeout=CALL_SECONDS)
        self._signals.GetMetrics(signal_pb2.GetMetricsRequest(run=self._name), timeout=CALL_SECONDS)
        self._runs.FinishRun(run_pb2.FinishRunRequest(name=self._name), timeout=CALL_SECONDS)
        watcher.join()

    def delete(self) -> None:
        """The run goes."""
        self._runs.DeleteRun(run_pb2.DeleteRunRequest(name=self._name), timeout=CALL_SECONDS)

    def _send(self, rank: int) -> None:
        messages = [one for step in range(STEPS) for one in payloads(rank, step)]
        for number, one in enumerate(messages, start=1):
            one.sequence = number
        acked, life = 0, 0
        while acked < len(messages):
            # A process that starts again sends what it has under a session of its own.
            leave_after = len(messages) // 2 if life == 0 else len(messages)
            acked = max(acked, self._stream(rank, life, messages, acked, leave_after))
            if life == 0:
                with contextlib.suppress(grpc.RpcError):
                    self._runs.RegisterCheckpoint(
                        run_pb2.RegisterCheckpointRequest(
                            run=self._name, checkpoint=run_pb2.Checkpoint(step=acked // len(messages))
                        ),
                        timeout=CALL_SECONDS,
                    )
            life += 1
            if life > 100:
                raise RuntimeError(f"run {self._name} rank {rank} gets no further than {acked}")

    def _stream(
        self,
        rank: int,
        life: int,
        messages: Sequence[routing_pb2.StreamRoutingRequest],
        acked: int,
        leave_after: int,
    ) -> int:
        hello = routing_pb2.StreamHello(
            run=self._name, rank=rank, world_size=RANKS, session=f"{os.getpid()}.{min(life, 1)}"
        )
        enough = threading.Event()

        def requests() -> Iterator[routing_pb2.StreamRoutingRequest]:
            yield routing_pb2.StreamRoutingRequest(hello=hello)
            yield from messages[acked:]
            enough.wait(CALL_SECONDS)

        call = self._routing.StreamRouting(requests())
        try:
            for response in call:
                acked = max(acked, response.acked_sequence)
                self._counts["rejections"] += len(response.rejections)
                if acked >= leave_after:
                    break
        except grpc.RpcError as error:
            self._counts[f"streams ended: {error.code().name}"] += 1
            time.sleep(1.0)
        finally:
            enough.set()
            call.cancel()  # type: ignore[no-untyped-call]
        return acked

    def _drain(self, watch: Iterator[signal_pb2.WatchSignalsResponse]) -> None:
        with contextlib.suppress(grpc.RpcError):
            for _ in watch:
                self._counts["signals"] += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Work for some seconds; prints counts as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak.workload")
    parser.add_argument("address")
    parser.add_argument("number", type=int)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    ends_at = time.monotonic() + options.seconds
    counts: Counter[str] = Counter()
    while time.monotonic() < ends_at:
        number = counts["runs"]
        # A connection of its own for each run, as a job has.
        apart = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(options.address, options=apart) as channel:
            Job(channel, f"client-{options.number}-run-{number}", counts).live()
            if number >= KEPT_RUNS:
                Job(channel, f"client-{options.number}-run-{number - KEPT_RUNS}", counts).delete()
        counts["runs"] += 1
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
