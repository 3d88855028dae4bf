"""Closing windows and taking in observations, of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench.figures import Figure
from bench.growth.curves import curve, doubling, megabytes, milliseconds
from bench.window.closing import close, seconds
from bench.window.windows import WIDTH
from pathwatch.client.tensors import to_tensor
from pathwatch.server.engine.decode import decode_batch, stored_topology
from pathwatch.server.engine.run_config import sketch_settings, with_defaults
from pathwatch.server.metrics.consistency import grams
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.sketch.run_sketch import RunSketch
from pathwatch.v1 import routing_pb2, run_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a round."""

    samples: int = 512
    layers: int = 16
    experts: int = 64
    groups: int = 8


OLMOE = Size()
SMALLER = Size(samples=256, groups=4)
"""For what grows beyond OLMoE's size."""
_BATCH = 256
"""Observations of a message."""


def closing(quick: bool) -> Iterator[Figure]:
    """CPU time of metrics and evidence against each size of a round."""
    rounds = 1 if quick else 2
    for name, sizes, base, aim in (
        ("samples", doubling(64, 1024, quick=quick), replace(OLMOE, groups=4), 1.2),
        ("layers", doubling(4, 64, quick=quick), SMALLER, 1.15),
        ("experts", doubling(16, 256, quick=quick), SMALLER, 1.15),
        ("groups", doubling(1 if not quick else 2, 32, quick=quick), replace(SMALLER, samples=128), 1.15),
    ):
        taken, held = {}, {}
        for size in sizes:
            shape = replace(base, **{name: size})
            windows, geometry = round_of(shape), geometry_of(shape)
            taken[size] = min(seconds(partial(close, windows, geometry)) for _ in range(rounds))
            held[size] = float(sum(window.nbytes for window in windows.values()))
        yield curve(f"close.{name}", taken, milliseconds, aim=aim)
        yield curve(f"arrays.{name}", held, megabytes)


def ingest(quick: bool) -> Iterator[Figure]:
    """CPU time of parsing, checking and sketching a message, which is not full before: all are kept."""
    for name, sizes in (
        ("samples", doubling(16, 1024, quick=quick)),
        ("layers", doubling(4, 64, quick=quick)),
        ("experts", doubling(16, 256, quick=quick)),
    ):
        taken = {}
        for size in sizes:
            shape = replace(Size(samples=_BATCH), **{name: size})
            taken[size] = _ingest_seconds(shape, rounds=5 if quick else 15)
        yield curve(f"ingest.{name}", taken, milliseconds)


def round_of(size: Size) -> Mapping[str, WindowArrays]:
    """Windows of random routing, half of it the group's own."""
    rng = np.random.default_rng(0)
    shape = size.samples, size.layers, size.experts
    found = {}
    for number in range(size.groups):
        logits_NLK = rng.standard_normal(shape, np.float32) + rng.standard_normal(shape[1:], np.float32)
        weights_NLK = np.exp(logits_NLK)
        weights_NLK /= weights_NLK.sum(axis=-1, keepdims=True)
        found[f"group-{number:02d}"] = WindowArrays(
            group=f"group-{number:02d}",
            first_step=1,
            step=1,
            sample_ids_N=np.sort(rng.integers(0, 2**62, size.samples)),
            losses_N=rng.normal(2, 0.5, size.samples),
            weights_NLK=weights_NLK,
            target_weights_NLK=None,
            targets_N=rng.integers(0, 20, size.samples).astype(np.int32),
            visits_N=rng.integers(0, 3, size.samples).astype(np.int32),
            tokens_N=np.full(size.samples, 256),
        )
    return found


def geometry_of(size: Size) -> Geometry:
    """Inner products of random router weights."""
    weights_LKD = np.random.default_rng(1).normal(0.1, 1, (size.layers, size.experts, WIDTH))
    self_LKK, next_LKK = grams(weights_LKD)
    return Geometry(
        step=1, gram_self_LKK=self_LKK.astype(np.float32), gram_next_LKK=next_LKK.astype(np.float32)
    )


def _ingest_seconds(size: Size, *, rounds: int) -> float:
    window = next(iter(round_of(replace(size, groups=1)).values()))
    data = routing_pb2.ObservationBatch(
        step=1,
        group=window.group,
        sample_ids=to_tensor(window.sample_ids_N),
        losses=to_tensor(window.losses_N.astype(np.float32)),
        weights=to_tensor(window.weights_NLK.astype(np.float16)),
    ).SerializeToString()
    topology = run_pb2.Topology(layers=size.layers, experts=size.experts)
    config = with_defaults(run_pb2.RunConfig(topology=topology, capacity=size.samples))
    shape, settings = stored_topology(config), sketch_settings("growth", config)

    def take() -> None:
        sketch = RunSketch(settings)
        sketch.add(decode_batch(routing_pb2.ObservationBatch.FromString(data), 0, shape), 0.0)

    return min(seconds(take) for _ in range(rounds))
