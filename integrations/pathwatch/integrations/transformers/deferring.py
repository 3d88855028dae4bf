"""Deferred samples for the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pathwatch.integrations.deferred import DeferredSampler
from pathwatch.integrations.deferred.choice import Groups


def defer(
    trainer: Trainer, groups: Groups, *, per_group: int = 32, release_at: float = 0.9
) -> DeferredSampler:
    """Have a Trainer keep a few samples per group back until late in its run.

        sampler = defer(trainer, groups)
        trainer.add_callback(PathwatchCallback(run=..., probe=Probe.from_dataset(dataset, deferred=sampler)))
        trainer.train()

    Call before `train`, on every rank. The Trainer draws what its own sampler would draw, but for the
    deferred samples; it is resumed as always. Visits of such a probe are known without being counted.

    Args:
        trainer: with a map-style training set.
        groups: data group of every sample, by its index in the training set; None = in none.
        per_group, release_at: as in `DeferredSampler`.

    Raises:
        ValueError: the training set has no index, its batches are not a fixed number of samples, groups are
            too small, or too little of the run is left after the release.
    """
    args = trainer.args
    source = trainer._get_train_sampler()
    if source is None:
        raise ValueError("samples of a dataset without length and index cannot be deferred")
    if args.train_sampling_strategy == "batch_rebalance" or args.auto_find_batch_size:
        raise ValueError(
            "deferring samples needs batches of a fixed number of samples: neither "
            "train_sampling_strategy='batch_rebalance' nor auto_find_batch_size"
        )
    accelerator = trainer.accelerator
    batch_size = trainer.get_total_train_batch_size(args)
    if accelerator.split_batches:
        batch_size //= accelerator.num_processes
    sampler = DeferredSampler(
        source,
        groups,
        batch_size=batch_size,
        steps=args.max_steps if args.max_steps > 0 else None,
        epochs=args.num_train_epochs,
        accumulation=args.gradient_accumulation_steps,
        per_group=per_group,
        release_at=release_at,
        seed=args.seed if args.data_seed is None else args.data_seed,
        # accelerate deals out what one sampler draws.
        num_replicas=1,
        rank=0,
        drop_last=args.dataloader_drop_last,
    )

    def drawn(train_dataset: Any = None) -> Sampler[int]:
        return sampler

    trainer._get_train_sampler = drawn
    trainer.add_callback(_Epochs(sampler))
    return sampler


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler where training is: Trainer does not reach it when it resumes on several ranks."""

    def __init__(self, sampler: DeferredSampler) -> None:
        self._sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch, _ = self._sampler.position(state.global_step)
        self._sampler.set_epoch(epoch)
