"""Visits over ranks, restarts and rewinds."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.integrations.deferred import DeferredSampler
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.visits import VisitCounter

TOKENS = torch.randint(16, (40, 6), generator=torch.Generator().manual_seed(1))


def counter(ids: list[int], *, untrained: bool = True, counts: bool = True) -> VisitCounter:
    return VisitCounter({"a": torch.tensor(ids)}, Agreement(), untrained=untrained, counts=counts)


def test_a_batch_of_several_groups_is_counted_at_once() -> None:
    both = VisitCounter(
        {"a": torch.tensor([5, 3]), "b": torch.tensor([3])}, Agreement(), untrained=True, counts=True
    )
    both.add(["a", "b", None, "a", "other"], [3, 3, 5, 3, 5])
    both.add("a", torch.tensor([[5], [9]]))
    assert {name: visits.tolist() for name, visits in both.total().items()} == {"a": [1, 2], "b": [1]}
    with pytest.raises(ValueError, match="2 samples were trained on, but 1 groups told"):
        both.add(["a"], [1, 2])


def test_one_process_counts_for_all_that_see_the_same_samples() -> None:
    other = counter([1, 2], counts=False)
    other.add("a", [1, 2])
    assert other.total()["a"].tolist() == [0, 0]


def test_a_restarted_job_goes_on_counting() -> None:
    first = counter([5, 3, 8])
    first.add("a", [3, 3, 8])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    # The probe has changed meanwhile: another order, a sample more, one less.
    second = counter([8, 7, 3], untrained=False)
    second.load_state_dict(state)
    second.add("a", [3, 7, 7])
    assert second.total()["a"].tolist() == [1, -1, 3]
    second.load_state_dict(state)
    assert second.total()["a"].tolist() == [1, -1, 2]


def test_what_is_not_known_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    resumed = counter([5, 3], untrained=False)
    resumed.add("a", [5])
    assert resumed.total()["a"].tolist() == resumed.total()["a"].tolist() == [-1, -1]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Watch.state_dict" in caplog.text


def train(engine: Any, steps: int, watch: Any = None) -> None:
    for _ in range(steps):
        if watch is not None:
            watch.visited("a", [0, 1])
        engine.backward(cross_entropy(engine(TOKENS[:4]).flatten(0, 1), TOKENS[:4].flatten()))
        engine.step()


def observed(stream: Any) -> dict[int, list[int]]:
    return {event["step"]: event["visits"].tolist() for event in stream.of("observe")}


def probe(**settings: Any) -> Probe:
    group = ProbeGroup(inputs={"tokens": TOKENS[:3]}, sample_ids=torch.arange(3))
    return Probe(groups={"a": group}, **{"interval": 2, "shift_labels": False, "visits": True, **settings})


def test_a_job_that_goes_back_without_a_state_knows_its_visits_no_more(
    make_engine: Callable, streams: list, tmp_path: Any
) -> None:
    """The weights were not trained on what came after the step it went back to."""
    engine = make_engine()
    with attach(engine, run="r", probe=probe()) as watch:
        train(engine, 3, watch)
        engine.global_steps = 1
        train(engine, 3, watch)
    assert observed(streams[0]) == {0: [0, 0, 0], 2: [2, 2, 0]}
    assert observed(streams[1]) == {2: [-1] * 3, 4: [-1] * 3}


def test_a_job_that_goes_back_to_a_checkpoint_knows_its_visits(
    make_engine: Callable, streams: list, tmp_path: Any
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=probe()) as watch:
        train(engine, 1, watch)
        engine.save_checkpoint(tmp_path)
        train(engine, 2, watch)
        engine.load_checkpoint(tmp_path)
        train(engine, 3, watch)
    assert observed(streams[0]) == {0: [0, 0, 0], 2: [2, 2, 0]}
    assert observed(streams[1]) == {2: [2, 2, 0], 4: [4, 4, 0]}


def test_a_sampler_knows_visits_without_counting(make_engine: Callable, streams: list) -> None:
    dataset = list(TOKENS)
    sampler = DeferredSampler(dataset, lambda i: "a", batch_size=4, steps=20, per_group=3, release_at=0.5)
    engine = make_engine()
    read = Probe.from_dataset(
        dataset, deferred=sampler, per_group=40, interval=4, name="tokens", shift_labels=False
    )
    taken: list[int] = []
    expected = {}
    with attach(engine, run="r", probe=read):
        loader = torch.utils.data.DataLoader(range(40), sampler=sampler, batch_size=4, num_workers=2)
        for _ in range(2):
            for ids in loader:
                if engine.global_steps % 4 == 0:
                    expected[engine.global_steps] = [taken.count(i) for i in range(40)]
                engine.backward(engine(TOKENS[ids]).square().mean())
                engine.step()
                taken += ids.tolist()
        expected[20] = [taken.count(i) for i in range(40)]
    assert observed(streams[0]) == expected
    late = sampler.deferred["a"]
    assert all(expected[step][i] == 0 for step in (0, 4, 8) for i in late)
    assert all(expected[20][i] > 0 for i in late)
