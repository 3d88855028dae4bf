"""Many runs of many groups, of little data each, so that there is much to scrape."""

from __future__ import annotations

import time

import grpc
import numpy as np

from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, run_pb2_grpc

LAYERS, EXPERTS, SAMPLES = 3, 8, 24
"""What is published of a group does not depend on its size."""


class Fleet:
    """Runs of one rank each, which all send a step together."""

    def __init__(self, address: str, *, runs: int, groups: int) -> None:
        """Creates the runs."""
        self._names = [f"run-{number:03d}" for number in range(runs)]
        self._groups = [f"group-{number}" for number in range(groups)]
        self._channel = grpc.insecure_channel(address)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._routing = routing_pb2_grpc.RoutingServiceStub(self._channel)
        self._step = 0
        self._sequence = 0
        config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS))
        # Between steps the runs are silent for as long as the measuring takes.
        config.grace_seconds = 3600
        for name in self._names:
            self._runs.CreateRun(run_pb2.CreateRunRequest(name=name, config=config), timeout=60)

    def close(self) -> None:
        """Leave the server."""
        self._channel.close()

    def send_step(self) -> None:
        """One more window of every group of every run; returns once all are judged."""
        self._step += 1
        messages = self._messages()
        for name in self._names:
            checkpoint = run_pb2.Checkpoint(step=self._step)
            self._runs.RegisterCheckpoint(
                run_pb2.RegisterCheckpointRequest(run=name, checkpoint=checkpoint), timeout=60
            )
            hello = routing_pb2.StreamHello(run=name, world_size=1, session="fleet")
            requests = iter([routing_pb2.StreamRoutingRequest(hello=hello), *messages])
            for response in self._routing.StreamRouting(requests, timeout=60):
                if response.rejections:
                    raise RuntimeError(f"{name}: {response.rejections[0].message}")
        self._wait_judged()

    def _messages(self) -> list[routing_pb2.StreamRoutingRequest]:
        rng = np.random.default_rng(self._step)
        rows = rng.normal(size=(LAYERS, EXPERTS, 8)).astype(np.float32)
        geometry = routing_pb2.ExpertGeometry(
            step=self._step,
            gram_self=to_tensor(rows @ rows.swapaxes(1, 2)),
            gram_next=to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
        )
        messages = [routing_pb2.StreamRoutingRequest(geometry=geometry)]
        for group in self._groups:
            weights_NLK = rng.dirichlet(np.full(EXPERTS, 0.3), (SAMPLES, LAYERS)).astype(np.float32)
            batch = routing_pb2.ObservationBatch(
                step=self._step,
                group=group,
                sample_ids=to_tensor(np.arange(SAMPLES)),
                losses=to_tensor(rng.uniform(1, 3, SAMPLES).astype(np.float32)),
                weights=to_tensor(weights_NLK),
                targets=to_tensor(np.arange(SAMPLES, dtype=np.int32) % 2),
                visits=to_tensor(np.arange(SAMPLES, dtype=np.int32) % 3),
            )
            messages.append(routing_pb2.StreamRoutingRequest(batch=batch))
        watermark = routing_pb2.Watermark(step=self._step)
        messages.append(routing_pb2.StreamRoutingRequest(watermark=watermark))
        for message in messages:
            self._sequence += 1
            message.sequence = self._sequence
        return messages

    def _wait_judged(self) -> None:
        deadline = time.monotonic() + 300
        while True:
            known = self._runs.ListRuns(run_pb2.ListRunsRequest(), timeout=60).runs
            behind = [r.name for r in known if r.name in self._names and r.closed_step < self._step]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(behind)} runs are not judged within 5 minutes")
            time.sleep(0.1)
