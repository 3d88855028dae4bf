"""Deferred samples in DeepSpeed's own dataloader."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pathwatch.integrations.deferred import DeferredSampler


def test_deepspeeds_loader_draws_deferred_samples_late(make_engine: Callable) -> None:
    engine = make_engine(gradient_accumulation_steps=2)
    tokens = torch.randint(16, (48, 6), generator=torch.Generator().manual_seed(3))
    dataset = [(i, tokens[i]) for i in range(48)]
    plain = engine.deepspeed_io(dataset, num_local_io_workers=0)
    sampler = DeferredSampler(
        dataset,
        lambda i: "ab"[i % 2],
        batch_size=engine.train_batch_size(),
        epochs=2,
        accumulation=2,
        per_group=2,
        release_at=0.7,
    )
    loader = engine.deepspeed_io(dataset, data_sampler=sampler, num_local_io_workers=0)
    assert len(loader) == len(plain)
    visits = sampler.visits(torch.arange(48))
    taken: list[int] = []
    for _ in range(2):
        for ids, rows in loader:
            if engine.is_gradient_accumulation_boundary() and engine.micro_steps % 2 == 0:
                at = visits.at(engine.global_steps)
                assert at.tolist() == [taken.count(i) for i in range(48)]
            engine.backward(engine(rows).square().mean())
            engine.step()
            taken += ids.tolist()
    late = {int(i) for indices in sampler.deferred.values() for i in indices}
    assert engine.global_steps == 12
    assert not late & set(taken[: 8 * sampler.release_step])
    assert sorted(taken[48:]) == list(range(48))
