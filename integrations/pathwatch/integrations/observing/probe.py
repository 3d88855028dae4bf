"""Probe mode: a fixed set of training samples, re-read every N steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pathwatch.integrations.capture.tokens import IGNORED_LABEL
from pathwatch.integrations.deferred import DeferredSampler, members_of, smallest_by_hash
from pathwatch.integrations.deferred.choice import Groups, Indices
from pathwatch.integrations.observing.dataset_samples import MapDataset, read_samples
from pathwatch.integrations.observing.padding import padded


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeGroup:
    """Training samples of one data group, the same on every rank; all tensors have N rows.

    They may stay in host memory: each batch is moved to the device when it is read.
    """

    inputs: Mapping[str, Tensor]
    """Arguments of the model's forward, by name, without labels."""
    sample_ids: Tensor
    """[N] int64, the ids by which the job knows these samples in training."""
    labels: Tensor | None = None
    """[N, S] what the model is to predict, -100 where nothing; None = no losses."""
    attention_mask: Tensor | None = None
    """[N, S] 0 = padding; None = no padding. The model is given `inputs` only."""

    def __post_init__(self) -> None:
        rows = {name: len(tensor) for name, tensor in self.inputs.items()}
        rows["sample_ids"] = len(self.sample_ids)
        if self.labels is not None:
            rows["labels"] = len(self.labels)
        if self.attention_mask is not None:
            rows["attention_mask"] = len(self.attention_mask)
        if not self.inputs or len(set(rows.values())) > 1 or not len(self.sample_ids):
            raise ValueError(
                f"a probe group needs inputs, and as many rows everywhere, at least one; got {rows}"
            )
        if len(self.sample_ids.unique()) != len(self.sample_ids):
            raise ValueError("a probe group names a sample id twice")

    @classmethod
    def of(
        cls,
        sequences: Sequence[Tensor | Sequence[int]],
        sample_ids: Tensor | Sequence[int],
        *,
        labels: Sequence[Tensor | Sequence[int]] | None = None,
        masks: Sequence[Tensor | Sequence[int]] | None = None,
        name: str = "input_ids",
        mask_name: str | None = "attention_mask",
    ) -> Self:
        """A group of samples of different lengths, filled up behind to the longest.

        Args:
            sequences: tokens of each sample.
            sample_ids: the ids by which the job knows them in training.
            labels: what each sample is to predict, as long as it; None = its tokens.
            masks: 0 = padding that a sample holds already; None = it holds none.
            name: the argument of the model's forward that takes the tokens.
            mask_name: the one that takes the attention mask, given only if there is padding; None = it takes
                none.

        Raises:
            ValueError: lengths or numbers do not fit together.
        """
        tokens_NS = padded(sequences, 0)
        mask_NS = padded([torch.ones(len(row)) for row in sequences] if masks is None else masks, 0)
        labels_NS = padded(sequences if labels is None else labels, IGNORED_LABEL)
        if not tokens_NS.shape == mask_NS.shape == labels_NS.shape:
            raise ValueError(
                "labels and masks must be as many and as long as the sequences; padded to one length, these "
                f"are {tuple(tokens_NS.shape)}, labels {tuple(labels_NS.shape)}, masks {tuple(mask_NS.shape)}"
            )
        whole = bool((mask_NS != 0).all())
        inputs = {name: tokens_NS}
        if mask_name is not None and not whole:
            inputs[mask_name] = mask_NS
        return cls(
            inputs=inputs,
            sample_ids=torch.as_tensor(sample_ids, dtype=torch.int64),
            labels=labels_NS.masked_fill(mask_NS == 0, IGNORED_LABEL),
            attention_mask=None if whole else mask_NS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to re-read, and how often."""

    groups: Mapping[str, ProbeGroup]
    """Group name → samples, a few hundred at most."""
    interval: int = 50
    """Optimizer steps between two readings; the first is before the first step."""
    batch_size: int | None = None
    """Samples of one forward pass on each rank; None = as many as make up 8,192 tokens. What fits in training
    fits here: there are no gradients, nor activations kept."""
    shift_labels: bool = True
    """True: the label at t + 1 is predicted at token t, as in transformers. False: at token t + 1 itself."""
    visits: bool | DeferredSampler = False
    """How often samples were trained on. A sampler: as it draws them, if training follows it. True: the job
    tells `Watch.visited` of every batch. False: not known."""
    forward: Callable[[torch.nn.Module, Mapping[str, Tensor]], Tensor] | None = None
    """Engine and inputs → logits [N, S, V]. None: call the engine with the inputs by name and take `.logits`,
    a tuple's first item, or the output itself."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("a probe needs at least one group")
        if self.interval < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(
                f"probe interval and batch size must be at least 1, got {self.interval} and {self.batch_size}"
            )

    @classmethod
    def from_dataset(
        cls,
        dataset: MapDataset,
        groups: Groups | None = None,
        *,
        deferred: DeferredSampler | None = None,
        per_group: int = 256,
        seed: int = 0,
        name: str = "input_ids",
        mask_name: str | None = "attention_mask",
        **settings: Any,
    ) -> Self:
        """A probe of training samples chosen by hash: the same on every rank and after every restart.

        Args:
            dataset: map-style; its items are sequences of tokens, or mappings that hold one under `name`,
                with `labels` and `attention_mask` if there are any. Sample ids are its indices.
            groups: data group of every sample, by index; None = in none. Not needed where `deferred` tells.
            deferred: the sampler that training draws from: its deferred samples are in the probe, among
                others, and visits are known from it.
            per_group: samples of each group, the deferred ones included; all if it has fewer.
            seed: of the choice.
            name: the argument of the model's forward that takes the tokens.
            mask_name: the one that takes the attention mask, if there is padding; None = it takes none.
            settings: the other fields of `Probe`.

        Raises:
            ValueError: groups are not told, or items of the dataset cannot be read.
        """
        if deferred is not None:
            members, kept_back = deferred.members, deferred.deferred
            settings.setdefault("visits", deferred)
        elif groups is not None:
            members, kept_back = members_of(groups, np.arange(len(dataset))), {}
        else:
            raise ValueError("give groups=, the data group of every sample, or deferred=")
        return cls(
            groups={
                group: _read_group(
                    dataset, _chosen(indices, kept_back.get(group), per_group, seed), name, mask_name
                )
                for group, indices in members.items()
            },
            **settings,
        )


def _chosen(indices_N: Indices, deferred_D: Indices | None, count: int, seed: int) -> Indices:
    if deferred_D is None:
        return np.sort(smallest_by_hash(indices_N, count, seed))
    if len(deferred_D) > count:
        raise ValueError(f"per_group must hold all {len(deferred_D)} deferred samples, got {count}")
    others = np.setdiff1d(indices_N, deferred_D, assume_unique=True)
    return np.sort(np.concatenate([deferred_D, smallest_by_hash(others, count - len(deferred_D), seed)]))


def _read_group(dataset: MapDataset, indices: Indices, name: str, mask_name: str | None) -> ProbeGroup:
    samples = read_samples(dataset, indices.tolist(), name)
    return ProbeGroup.of(
        [sample.tokens for sample in samples],
        torch.from_numpy(indices),
        labels=[sample.labels for sample in samples],
        masks=[sample.mask for sample in samples],
        name=name,
        mask_name=mask_name,
    )
