"""Trains the model and records its probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from runs.model import MoETransformer
from runs.record import LogPoint, save_run
from text.corpus import LENGTH
from text.feed import Feed
from text.groups import DEFERRED, STEPS, Group
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

INTERVAL = 12
"""Steps between two readings of the probe."""
RELEASE = 0.9
"""Share of the steps after which deferred samples are trained on."""
PROBE = 128
"""Samples of a group that are re-read."""
CHUNK = 16
"""Sequences evaluated at once."""
LEARNING_RATE = 2e-3
WARMUP = 30
BALANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Watched:
    """A group in training."""

    group: Group
    feed: Feed
    probe_N: NDArray[np.intp]


def train(
    name: str, groups: list[Group], seed: int, out: Path, *, deferred: bool, steps: int = STEPS
) -> list[LogPoint]:
    """Train on all groups at once, write the trace and its labels; returns what was recorded."""
    torch.manual_seed(seed)
    held_back = DEFERRED if deferred else 0
    watched = []
    for index, group in enumerate(groups):
        feed = Feed(len(group.text.train), held_back, np.random.default_rng([seed, index]))
        watched.append(Watched(group, feed, feed.probe(PROBE, held_back)))
    model = MoETransformer(
        256, 256, LENGTH, layers=4, width=96, heads=2, experts=8, hidden=24, top=2, last_only=False
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    points = []
    for step in range(steps + 1):
        if step % INTERVAL == 0:
            points.append(_read(model, watched, step))
            print(_line(points[-1], groups), flush=True)
        if step == steps:
            break
        if deferred and step == round(RELEASE * steps):
            for one in watched:
                one.feed.release()
        batch = [one.group.text.train[one.feed.take(one.group.per_step)] for one in watched]
        loss = _losses_B(model, np.concatenate(batch)).mean() + BALANCE * model.balance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    meta = {
        "layers": 4,
        "experts": 8,
        "deferred": held_back,
        "training_sequences": {group.name: len(group.text.train) for group in groups},
    }
    save_run(out, name, [group.name for group in groups], points, meta=meta)
    return points


def _losses_B(model: MoETransformer, sequences: NDArray[np.uint8]) -> Tensor:
    """Mean loss of each sequence, nats per byte."""
    tokens = torch.from_numpy(sequences).long()
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch's fused kernel for CPUs takes twice the time here
        logits_BSV = model(tokens[:, :-1])
    return cross_entropy(logits_BSV.transpose(1, 2), tokens[:, 1:], reduction="none").mean(dim=1)


@torch.no_grad()
def _read(model: MoETransformer, watched: list[Watched], step: int) -> LogPoint:
    model.eval()
    losses, weights, held_out, gaps = [], [], [], []
    for one in watched:
        probe = one.group.text.train[one.probe_N]
        losses_of_probe, weights_of_probe = [], []
        for start in range(0, len(probe), CHUNK):
            losses_of_probe.append(_losses_B(model, probe[start : start + CHUNK]))
            weights_of_probe.append(model.weights_BSLK.mean(dim=1))
        losses.append(torch.cat(losses_of_probe).numpy())
        weights.append(torch.cat(weights_of_probe).numpy())
        gaps.append(recency_gap(losses[-1], one.feed.latest_N[one.probe_N]))
        text = one.group.text.held_out
        chunks = [_losses_B(model, text[start : start + CHUNK]) for start in range(0, len(text), CHUNK)]
        held_out.append(torch.cat(chunks).mean().item())
    model.train()
    return LogPoint(
        step=step,
        losses_GN=np.stack(losses),
        weights_GNLK=np.stack(weights),
        visits_GN=np.stack([one.feed.visits_N[one.probe_N] for one in watched]),
        routers_LKD=model.routers_LKD,
        truth={"val_loss": held_out, "recency_gap": gaps},
    )


def recency_gap(losses_N: NDArray[np.float32], latest_N: NDArray[np.int64]) -> float:
    """Mean loss of the third of visited samples seen longest ago minus that of the third seen last, nats.

    NaN before three samples have been visited.
    """
    visited = np.flatnonzero(latest_N >= 0)
    third = len(visited) // 3
    if third == 0:
        return float("nan")
    by_age = visited[latest_N[visited].argsort(kind="stable")]
    return float(losses_N[by_age[:third]].mean() - losses_N[by_age[-third:]].mean())


def _line(point: LogPoint, groups: list[Group]) -> str:
    told = "  ".join(
        f"{group.name} {losses_N.mean():.2f} / {held_out:.3f}"
        for group, losses_N, held_out in zip(groups, point.losses_GN, point.truth["val_loss"], strict=True)
    )
    return f"step {point.step:4d}  probe loss / validation loss  {told}"
