"""Trains a recipe's model and records its probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from arithmetic.data import Group
from numpy.typing import NDArray
from runs.data import make_group
from runs.model import MoETransformer
from runs.olmoe import Olmoe
from runs.recipes import Recipe
from runs.record import LogPoint
from torch import Tensor
from torch.nn.functional import cross_entropy

LEARNING_RATE = 2e-3
WARMUP = 50
BATCH = 512
BALANCE = 1e-3

Model = MoETransformer | Olmoe


@dataclass(frozen=True, slots=True)
class Data:
    """The groups of a run and, for each, the ids of the training samples that the probe re-reads."""

    groups: list[Group]
    probe: list[Tensor]

    @property
    def targets_GN(self) -> NDArray[np.int32]:
        """The answers of the probe's samples."""
        pairs = zip(self.groups, self.probe, strict=True)
        return np.stack([group.answers_N[ids].numpy() for group, ids in pairs]).astype(np.int32)


def make_data(recipe: Recipe, rng: np.random.Generator) -> Data:
    """Draw splits and probes."""
    groups = [make_group(item, index, recipe.p, rng) for index, item in enumerate(recipe.groups)]
    # A trace holds equally many samples of every group.
    size = min(recipe.probe, *(len(group.train_ids) for group in groups))
    probe = []
    for group in groups:
        chosen = np.sort(rng.choice(len(group.train_ids), size, replace=False))
        probe.append(group.train_ids[chosen])
    return Data(groups, probe)


def make_model(recipe: Recipe) -> Model:
    """A fresh model; draws from PyTorch's global generator."""
    vocabulary = recipe.p + len(recipe.groups)
    shape = {
        "layers": recipe.layers,
        "width": recipe.width,
        "experts": recipe.experts,
        "hidden": recipe.hidden,
        "top": recipe.top,
    }
    if recipe.olmoe:
        return Olmoe(vocabulary, 3, **shape)
    return MoETransformer(vocabulary, recipe.p, 3, heads=2, init_scale=recipe.init_scale, **shape)


def train(recipe: Recipe, data: Data, rng: np.random.Generator, steps: int) -> Iterator[LogPoint]:
    """Train for so many steps and yield every reading of the probe, the first before any step."""
    torch.manual_seed(recipe.seed)
    model = make_model(recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    tokens_N3 = torch.cat([group.tokens_N3[group.train_ids] for group in data.groups])
    answers_N = torch.cat([group.answers_N[group.train_ids] for group in data.groups])
    for step in range(steps + 1):
        if step % recipe.interval == 0:
            yield _read(model, data, step)
        if step == steps:
            break
        drawn = torch.from_numpy(rng.integers(0, len(tokens_N3), BATCH))
        loss = cross_entropy(model(tokens_N3[drawn]), answers_N[drawn]) + BALANCE * model.balance
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _read(model: Model, data: Data, step: int) -> LogPoint:
    model.eval()
    losses, weights, target_weights = [], [], []
    truth: dict[str, list[float]] = {"test_acc": [], "train_acc": [], "test_loss": []}
    for group, ids in zip(data.groups, data.probe, strict=True):
        logits_NC = model(group.tokens_N3[ids])
        losses.append(cross_entropy(logits_NC, group.answers_N[ids], reduction="none").numpy())
        weights.append(model.weights_BSLK.mean(dim=1).numpy())
        target_weights.append(model.weights_BSLK[:, -1].numpy())
        truth["train_acc"].append(_accuracy(logits_NC, group.answers_N[ids]))
        logits_NC, answers_N = model(group.tokens_N3[group.test_ids]), group.answers_N[group.test_ids]
        truth["test_acc"].append(_accuracy(logits_NC, answers_N))
        truth["test_loss"].append(cross_entropy(logits_NC, answers_N).item())
    model.train()
    return LogPoint(
        step=step,
        losses_GN=np.stack(losses),
        weights_GNLK=np.stack(weights),
        target_weights_GNLK=np.stack(target_weights),
        routers_LKD=model.routers_LKD,
        truth=truth,
    )


def _accuracy(logits_NC: Tensor, answers_N: Tensor) -> float:
    return (logits_NC.argmax(-1) == answers_N).float().mean().item()
