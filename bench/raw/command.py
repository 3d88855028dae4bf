"""How fast raw router logits become routing weights, against a softmax and a mean in torch on one thread.

4,096 tokens × 16 layers × 64 experts, as one message of eight samples. `reduce`: what the server does with
the parsed message, checks included, in this process; blocks of both take turns, by their processor time.
`stream`: the same messages through `pathwatch serve`, from the sender to the acknowledgement, by the clock:
how long one takes while others follow.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import torch

from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.overload.messages import EXPERTS, LAYERS, topology
from bench.raw.sending import seconds_per_message
from bench.sidecar import Sidecar
from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc, tensor_pb2

TOKENS, SAMPLES = 4096, 8
AIM = 0.5
"""Of torch's speed."""


def measure(quick: bool) -> Iterator[Figure]:
    """The figures of both element types."""
    torch.set_num_threads(1)
    blocks, seconds = (9, 1.5) if quick else (25, 5.0)
    logits = torch.randn((TOKENS, LAYERS, EXPERTS), generator=torch.Generator().manual_seed(0)) * 2
    for name, scores in (("fp32", logits), ("bf16", logits.bfloat16())):
        batch = _batch(scores)
        yield _reduced(name, scores, batch, blocks)
        yield _streamed(name, batch, seconds)


def _batch(scores: torch.Tensor) -> routing_pb2.ObservationBatch:
    """All tokens as samples of one length, each with a loss."""
    is_half = scores.dtype == torch.bfloat16
    return routing_pb2.ObservationBatch(
        group="raw",
        sample_ids=to_tensor(np.arange(SAMPLES)),
        losses=to_tensor(np.full(SAMPLES, 2.0, np.float32)),
        raw=routing_pb2.RawScores(
            kind=routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
            scores=tensor_pb2.Tensor(
                dtype=tensor_pb2.D_TYPE_BFLOAT16 if is_half else tensor_pb2.D_TYPE_FLOAT32,
                shape=scores.shape,
                data=(scores.view(torch.int16) if is_half else scores).numpy().tobytes(),
            ),
            lengths=to_tensor(np.full(SAMPLES, TOKENS // SAMPLES, np.int32)),
        ),
    )


def _reduced(name: str, scores: torch.Tensor, batch: routing_pb2.ObservationBatch, blocks: int) -> Figure:
    shape = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
    expected = torch.softmax(scores.double(), -1).mean(0).numpy()
    np.testing.assert_allclose(decode_batch(batch, 0, shape).weights_NLK.mean(axis=0), expected, rtol=1e-5)
    pairs = [
        (_cpu_seconds(lambda: _by_torch(scores)), _cpu_seconds(lambda: decode_batch(batch, 0, shape)))
        for _ in range(blocks)
    ]
    peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Figure(
        name=f"raw.reduce.{name}",
        value=statistics.median(peer / ours for peer, ours in pairs),
        unit=Unit.RATIO,
        higher_is_better=True,
        aim=AIM,
        detail=f"{ours * 1e3:.1f} ms; torch {peer * 1e3:.1f} ms; {blocks} of each",
    )


def _streamed(name: str, batch: routing_pb2.ObservationBatch, seconds: float) -> Figure:
    with (
        tempfile.TemporaryDirectory(prefix="pathwatch-bench-") as folder,
        Sidecar(Path(folder) / "data") as sidecar,
    ):
        run = f"raw-{name}"
        config = run_pb2.RunConfig(topology=topology(), mode=run_pb2.OBSERVATION_MODE_PROBE)
        with grpc.insecure_channel(sidecar.grpc) as channel:
            run_pb2_grpc.RunServiceStub(channel).CreateRun(run_pb2.CreateRunRequest(name=run, config=config))
        ours, messages = seconds_per_message(sidecar.grpc, run, batch, seconds)
    return Figure(
        name=f"raw.stream.{name}",
        value=ours,
        unit=Unit.SECONDS,
        higher_is_better=False,
        detail=f"a message of {batch.ByteSize() / 1e6:.0f} MB, {messages} of them: "
        f"{batch.ByteSize() / ours / 1e6:.0f} MB/s",
    )


def _by_torch(scores: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores.float(), -1).mean(0)


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def main() -> None:
    """The command line."""
    run_bench("raw", __doc__ or "", measure)
