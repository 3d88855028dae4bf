"""Test accuracy of the model in training: for judging the service afterwards, never sent to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from data import Group
from torch import Tensor, nn

SAMPLES = 256
"""Pairs looked at per group and side: enough for an accuracy to within a few percent, and cheap."""


class Judge:
    """Keeps accuracy and loss on training and held-back pairs of every group."""

    def __init__(self, groups: list[Group], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._groups = groups
        self._pairs = [
            (_some(group.train_ids, generator), _some(group.test_ids, generator)) for group in groups
        ]
        self._steps: list[int] = []
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def look(self, model: nn.Module, step: int) -> str:
        """Evaluate now; returns one line of test accuracies."""
        model.eval()
        row_G4 = torch.tensor(
            [
                [*_score(model, group, train_ids), *_score(model, group, test_ids)]
                for group, (train_ids, test_ids) in zip(self._groups, self._pairs, strict=True)
            ]
        )
        model.train()
        self._steps.append(step)
        self._rows.append(row_G4)
        accuracies = "  ".join(f"{g.name} {row_G4[i, 2]:.2f}" for i, g in enumerate(self._groups))
        return f"step {step:5d}  test accuracy  {accuracies}"

    def save(self, path: Path) -> None:
        """Write everything seen: steps [T], groups [G]; train_acc, train_loss, test_acc, test_loss [T, G]."""
        table_TG4 = torch.stack(self._rows).numpy()
        names = ["train_acc", "train_loss", "test_acc", "test_loss"]
        np.savez(
            path,
            steps=np.array(self._steps, dtype=np.int64),
            groups=np.array([g.name for g in self._groups]),
            **{name: table_TG4[:, :, column] for column, name in enumerate(names)},
        )


def _some(ids: Tensor, generator: torch.Generator) -> Tensor:
    return ids[torch.randperm(len(ids), generator=generator)[:SAMPLES]]


def _score(model: nn.Module, group: Group, ids: Tensor) -> tuple[float, float]:
    """Accuracy and mean loss on pairs of a group."""
    logits_NV = model(group.tokens_N3[ids])[0][:, -1]
    answers_N = group.answers_N[ids]
    return (
        (logits_NV.argmax(dim=-1) == answers_N).float().mean().item(),
        nn.functional.cross_entropy(logits_NV, answers_N).item(),
    )
