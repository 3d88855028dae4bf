"""Deferred samples in a real Trainer of transformers, and in what accelerate makes of its loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import OlmoeConfig, OlmoeForCausalLM, Trainer, TrainingArguments

from pathwatch.integrations.deferred import DeferredSampler
from pathwatch.integrations.transformers import PathwatchCallback, Probe, defer

SIZE = 62


class Noting(nn.Module):
    """Trains a number, and notes which samples it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.given: list[int] = []

    def forward(self, index: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.given += index.tolist()
        return {"loss": ((self.weight - labels) ** 2).mean()}


def training_set() -> list[dict[str, Any]]:
    return [{"index": i, "labels": float(i)} for i in range(SIZE)]


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A Trainer with batches of four, and two of them to a step."""

    def make(**arguments: Any) -> Trainer:
        settings = TrainingArguments(
            **{
                "output_dir": str(tmp_path),
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "num_train_epochs": 3,
                "save_strategy": "no",
                "report_to": "none",
                "use_cpu": True,
                "disable_tqdm": True,
                "seed": 7,
                **arguments,
            }
        )
        return Trainer(Noting(), settings, train_dataset=training_set())

    return make


def group_of(index: int) -> str:
    return "ab"[index % 2]


@pytest.mark.parametrize("arguments", [{}, {"max_steps": 13}, {"dataloader_drop_last": True}])
def test_a_run_keeps_its_steps_and_sees_deferred_samples_late(
    trainer: Callable[..., Trainer], arguments: dict[str, Any]
) -> None:
    plain = trainer(**arguments)
    plain.train()
    ours = trainer(**arguments)
    sampler = defer(ours, group_of, per_group=2, release_at=0.7)
    ours.train()
    assert ours.state.global_step == plain.state.global_step
    given = ours.model.given
    assert len(given) == len(plain.model.given)
    # Eight steps an epoch, the last of them with what is left, of which two samples may be dropped.
    per_epoch = 60 if arguments.get("dataloader_drop_last") else SIZE
    epoch, steps = divmod(sampler.release_step, -(-per_epoch // 8))
    released = epoch * per_epoch + 8 * steps
    late = {int(i) for indices in sampler.deferred.values() for i in indices}
    assert len(late) == 4
    assert not late & set(given[:released])
    assert late <= set(given[released:])
    counts = Counter(given)
    visits = sampler.visits(torch.arange(SIZE)).at(ours.state.global_step)
    assert visits.tolist() == [counts[i] for i in range(SIZE)]


@pytest.mark.parametrize("save_steps", [5, 11])
def test_a_resumed_trainer_draws_what_was_left(trainer: Callable[..., Trainer], save_steps: int) -> None:
    whole = trainer(save_strategy="steps", save_steps=save_steps)
    defer(whole, group_of, per_group=2, release_at=0.6)
    whole.train()
    resumed = trainer()
    defer(resumed, group_of, per_group=2, release_at=0.6)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{save_steps}")
    assert resumed.model.given == whole.model.given[-len(resumed.model.given) :]
    epoch, steps = divmod(save_steps, 8)
    assert len(resumed.model.given) == 3 * SIZE - epoch * SIZE - 8 * steps


def test_accelerate_deals_one_sampler_out_to_all_ranks() -> None:
    samplers, loaders = [], []
    for rank in range(2):
        sampler = DeferredSampler(
            range(SIZE), group_of, batch_size=8, epochs=3, per_group=2, release_at=0.5, num_replicas=1, rank=0
        )
        loader = DataLoader(list(range(SIZE)), sampler=sampler, batch_size=4)
        samplers.append(sampler)
        loaders.append(prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False))
    late = {int(i) for indices in samplers[0].deferred.values() for i in indices}
    for epoch in range(3):
        given = []
        for sampler, loader in zip(samplers, loaders, strict=True):
            loader.set_epoch(epoch)
            batches = [batch.tolist() for batch in loader]
            sampler.set_epoch(epoch)
            resumed = [batch.tolist() for batch in skip_first_batches(loader, 3)]
            assert resumed == batches[3:]
            given.append(batches)
        together = [list(chain.from_iterable(batches)) for batches in zip(*given, strict=True)]
        # The last batch of an epoch is filled up with samples of its first, as accelerate does.
        assert len(list(chain.from_iterable(together))) == 64
        for step, taken in enumerate(together):
            assert bool(late & set(taken)) <= (8 * epoch + step >= samplers[0].release_step)
        if epoch > 0:
            assert set(chain.from_iterable(together)) == set(range(SIZE))


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        yield {"index": 0, "labels": 0.0}


def test_a_trainer_that_cannot_defer_says_so(trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match="fixed number of samples"):
        defer(trainer(auto_find_batch_size=True), group_of)
    endless = trainer(max_steps=4)
    endless.train_dataset = Endless()
    with pytest.raises(ValueError, match="without length and index"):
        defer(endless, group_of)


def test_a_trainer_resumed_on_several_ranks_draws_the_epoch_it_is_in(trainer: Callable[..., Trainer]) -> None:
    """accelerate does not tell a sampler its epoch there."""
    ours = trainer()
    sampler = defer(ours, group_of, per_group=2, release_at=0.5)

    def loader() -> DataLoader:
        plain = DataLoader(list(range(SIZE)), sampler=sampler, batch_size=4)
        return prepare_data_loader(plain, num_processes=2, process_index=1, put_on_device=False)

    uninterrupted = loader()
    uninterrupted.set_epoch(1)
    whole = [batch.tolist() for batch in uninterrupted]
    sampler.set_epoch(0)
    ours.state.global_step = 8 + 3
    ours.callback_handler.on_epoch_begin(ours.args, ours.state, ours.control)
    resumed = skip_first_batches(loader(), 3)
    resumed.set_epoch(1)
    assert [batch.tolist() for batch in resumed] == whole[3:]


def test_a_watched_trainer_knows_visits_of_its_probe(streams: list, tmp_path: Path) -> None:
    """The whole of it: deferred samples, a probe of the training set, the callback; nothing is counted."""
    config = OlmoeConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    tokens = torch.randint(32, (SIZE, 8), generator=torch.Generator().manual_seed(1)).tolist()
    dataset = [{"input_ids": row, "labels": row} for row in tokens]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    made = Trainer(OlmoeForCausalLM(config), arguments, train_dataset=dataset)
    sampler = defer(made, group_of, per_group=2, release_at=0.6)
    probe = Probe.from_dataset(dataset, deferred=sampler, interval=4)
    made.add_callback(PathwatchCallback(run="r", probe=probe, strict=True))
    made.train()
    assert made.state.global_step == 16
    visits: dict[int, dict[int, int]] = {}
    for event in streams[0].of("observe"):
        some = zip(event["sample_ids"].tolist(), event["visits"].tolist(), strict=True)
        visits.setdefault(event["step"], {}).update(some)
    # Before, half the first epoch, all of it, half the second, both.
    assert {step: sum(counts.values()) for step, counts in visits.items()} == {
        0: 0,
        4: 32,
        8: SIZE,
        12: SIZE + 32,
        16: 2 * SIZE,
    }
    late = [int(i) for indices in sampler.deferred.values() for i in indices]
    assert [visits[step][i] for step in (0, 4, 8) for i in late] == [0] * 12
    assert [visits[16][i] for i in late] == [1] * 4
