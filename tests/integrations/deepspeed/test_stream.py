"""Stream mode on a real engine: training's own forward passes, of described batches only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pathwatch.integrations.deepspeed import Stream, attach
from pathwatch.v1 import run_pb2

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
LABELS = TOKENS.roll(1, 1)


def step(engine: Any, tokens: torch.Tensor = TOKENS) -> float:
    loss = cross_entropy(engine(tokens).flatten(0, 1), LABELS.flatten())
    engine.backward(loss)
    engine.step()
    return loss.item()


def described(watch: Any, **more: Any) -> None:
    watch.batch(
        **{
            "groups": ["a", "b", "a", "b"],
            "sample_ids": [10, 20, 11, 21],
            "shape": (4, 6),
            "labels": LABELS,
            **more,
        }
    )


def test_training_batches_are_observed_before_their_update(
    make_engine: Callable, make_model: Callable, streams: list
) -> None:
    engine = make_engine(make_model(k=3))
    engine.module.dropout.p = 0.0
    matrix = engine.module.layers[0].deepspeed_moe.gate.wg.weight
    with attach(engine, run="r", stream=Stream(window_steps=2, interval=1, shift_labels=False)) as watch:
        step(engine)
        weights = (engine.module.embedding(TOKENS) @ matrix.T).softmax(-1).mean(1).detach()
        described(watch, visits=[1, 1, 0, 2])
        loss = step(engine)
        step(engine)
    stream = streams[0]
    config = stream.settings["config"]
    assert (config.mode, config.window_steps) == (run_pb2.OBSERVATION_MODE_STREAM, 2)
    first, second = stream.of("observe")
    assert (first["group"], first["step"], first["sample_ids"].tolist()) == ("a", 1, [10, 11])
    assert (second["group"], second["step"], second["sample_ids"].tolist()) == ("b", 1, [20, 21])
    assert (first["visits"].tolist(), second["visits"].tolist()) == ([1, 0], [1, 2])
    np.testing.assert_allclose(first["weights"][:, 0], weights[[0, 2]], atol=1e-6)
    assert first["target_weights"] is None
    mean = np.concatenate([first["losses"], second["losses"]]).mean()
    assert mean == pytest.approx(loss, abs=1e-5)
    assert [event["step"] for event in stream.of("watermark")] == [0, 1, 2]
    assert [event["step"] for event in stream.of("geometry")] == [1]


def test_evaluation_and_undescribed_passes_are_not_mixed_in(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=Stream(window_steps=1)) as watch:
        described(watch)
        engine.eval()
        with torch.no_grad():
            engine(TOKENS[:2])
        engine.train()
        step(engine)
        step(engine)
    assert [(event["step"], len(event["sample_ids"])) for event in streams[0].of("observe")] == [
        (0, 2),
        (0, 2),
    ]


def test_micro_batches_belong_to_the_step_they_lead_to(make_engine: Callable, streams: list) -> None:
    engine = make_engine(gradient_accumulation_steps=2)
    with attach(engine, run="r", stream=Stream(window_steps=1)) as watch:
        for micro in range(4):
            described(watch, groups="a", sample_ids=[4 * micro + i for i in range(4)])
            step(engine)
    observed = [(event["step"], event["sample_ids"].tolist()) for event in streams[0].of("observe")]
    assert observed == [(0, [0, 1, 2, 3]), (0, [4, 5, 6, 7]), (1, [8, 9, 10, 11]), (1, [12, 13, 14, 15])]


def test_training_is_bit_identical_with_and_without(make_engine: Callable, streams: list) -> None:
    def train(watched: bool) -> list[float]:
        engine = make_engine()
        torch.manual_seed(2)
        if not watched:
            return [step(engine) for _ in range(4)]
        losses = []
        with attach(engine, run="r", stream=Stream(window_steps=1)) as watch:
            for _ in range(4):
                described(watch)
                losses.append(step(engine))
        return losses

    assert train(watched=True) == train(watched=False)
    assert len(streams[0].of("observe")) == 8


def test_packed_rows_give_one_observation_per_sample(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    segments = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 2, 2]])
    with attach(engine, run="r", stream=Stream(window_steps=1)) as watch:
        described(
            watch,
            groups=["a", "b", "a", None, "a", "b", "b", "b"],
            sample_ids=[0, 1, 2, -1, 3, 4, 5, 6],
            segment_ids=segments,
        )
        step(engine)
    counts = {
        (event["group"], i): n
        for event in streams[0].of("observe")
        for i, n in zip(event["sample_ids"].tolist(), event["token_counts"].tolist(), strict=True)
    }
    assert counts == {
        ("a", 0): 3,
        ("b", 1): 3,
        ("a", 2): 6,
        ("a", 3): 2,
        ("b", 4): 2,
        ("b", 5): 4,
        ("b", 6): 2,
    }


def test_a_wrong_description_costs_that_reading_only(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=Stream(window_steps=1)) as watch:
        described(watch, sample_ids=[1, 2, 3])
        step(engine)
        described(watch)
        step(engine)
    assert {event["step"] for event in streams[0].of("observe")} == {1}
    assert caplog.text.count("4 rows came with 3 sample ids") == 1


def test_what_was_described_before_going_back_is_not_what_comes(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine()
    stream = Stream(window_steps=2, interval=1, shift_labels=False)
    with attach(engine, run="r", stream=stream) as watch:
        step(engine)
        engine.save_checkpoint(tmp_path)
        step(engine)
        described(watch, sample_ids=[1, 2, 3, 4])
        engine.load_checkpoint(tmp_path)
        described(watch, sample_ids=[5, 6, 7, 8])
        step(engine)
    sent = [number for event in streams[-1].of("observe") for number in event["sample_ids"].tolist()]
    assert sorted(sent) == [5, 6, 7, 8]
