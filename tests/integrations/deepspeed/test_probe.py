"""Probe mode on a real engine: what is read, when, and that training does not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.v1 import run_pb2

TOKENS = torch.randint(16, (40, 6), generator=torch.Generator().manual_seed(1))
LABELS = torch.where(torch.arange(6) == 5, TOKENS.flip(1), -100)


def probe(**settings: Any) -> Probe:
    return Probe(
        groups={
            "even": ProbeGroup(
                inputs={"tokens": TOKENS[:10:2]}, sample_ids=torch.arange(0, 10, 2), labels=LABELS[:10:2]
            ),
            "odd": ProbeGroup(
                inputs={"tokens": TOKENS[1:14:2]}, sample_ids=torch.arange(1, 14, 2), labels=LABELS[1:14:2]
            ),
        },
        **{"interval": 3, "batch_size": 4, "shift_labels": False, **settings},
    )


def train(engine: Any, steps: int, after: Callable[[int], None] = lambda step: None) -> list[float]:
    torch.manual_seed(11)
    losses = []
    for micro in range(steps):
        rows = slice(4 * micro % 40, 4 * micro % 40 + 4)
        loss = cross_entropy(engine(TOKENS[rows]).flatten(0, 1), LABELS[rows].flatten(), ignore_index=-100)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
        after(engine.global_steps)
    return losses


def test_training_is_bit_identical_with_and_without(make_engine: Callable, streams: list) -> None:
    """Same losses and weights, with dropout and sampled second experts drawing random numbers."""
    plain_engine = make_engine()
    plain = train(plain_engine, 7)
    engine = make_engine()
    with attach(engine, run="r", probe=probe()):
        watched = train(engine, 7)
    assert watched == plain
    for own, other in zip(engine.module.parameters(), plain_engine.module.parameters(), strict=True):
        assert torch.equal(own, other)
    assert {event["step"] for event in streams[0].of("observe")} == {0, 3, 6}


def test_observations_hold_the_probe_as_the_model_sees_it(
    make_engine: Callable, make_model: Callable, streams: list
) -> None:
    engine = make_engine(make_model(k=3))
    with attach(engine, run="r", server="h:1", probe=probe(batch_size=5)):
        train(engine, 3)
        module = engine.module.eval()
        with torch.no_grad():
            hidden = module.embedding(TOKENS)
            logits = module(TOKENS[:10:2])
        matrix = module.layers[0].deepspeed_moe.gate.wg.weight.detach()
    expected_BSK = (hidden @ matrix.T).softmax(-1)
    stream = streams[0]
    assert stream.settings["server"] == "h:1"
    config = stream.settings["config"]
    assert (config.topology.layers, config.topology.experts) == (2, 4)
    assert config.mode == run_pb2.OBSERVATION_MODE_PROBE
    seen = {}
    for event in (e for e in stream.of("observe") if e["step"] == 3):
        for row, sample_id in enumerate(event["sample_ids"].tolist()):
            seen[event["group"], sample_id] = {
                key: event[key][row]
                for key in ("weights", "target_weights", "losses", "targets", "token_counts")
            }
    assert sorted(seen) == [("even", i) for i in range(0, 10, 2)] + [("odd", i) for i in range(1, 14, 2)]
    for (_, sample_id), values in seen.items():
        np.testing.assert_allclose(values["weights"][0], expected_BSK[sample_id].mean(0), atol=1e-6)
        np.testing.assert_allclose(values["target_weights"][0], expected_BSK[sample_id, 5], atol=1e-6)
        assert values["targets"] == LABELS[sample_id, 5]
        assert values["token_counts"] == 6
    for row, sample_id in enumerate(range(0, 10, 2)):
        loss = -logits[row, 5].log_softmax(-1)[LABELS[sample_id, 5]].item()
        assert seen["even", sample_id]["losses"] == pytest.approx(loss, abs=1e-5)


def test_geometry_then_watermark_close_every_reading(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=probe()):
        train(engine, 3)
    order = [(kind, arguments["step"]) for kind, arguments in streams[0].events]
    for step in (0, 3):
        own = [kind for kind, at in order if at == step]
        assert own[-2:] == ["geometry", "watermark"]
        assert set(own[:-2]) == {"observe"}
    assert order == sorted(order, key=lambda event: event[1])


def test_steps_are_optimizer_steps_under_gradient_accumulation(make_engine: Callable, streams: list) -> None:
    engine = make_engine(gradient_accumulation_steps=2)
    with attach(engine, run="r", probe=probe(interval=1)):
        train(engine, 6)
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 1, 2, 3]


@pytest.mark.parametrize("counting", [True, False])
def test_visits_are_counted_when_promised(make_engine: Callable, streams: list, counting: bool) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=probe(visits=counting)) as watch:

        def visit(step: int) -> None:
            watch.visited("even", [0, 2, 2, 99] if step < 3 else [4])
            watch.visited("unknown", [1])

        train(engine, 4, visit)
        train(engine, 2, visit)
    by_step = {
        step: {
            i: None if e["visits"] is None else int(e["visits"][row])
            for e in streams[0].of("observe")
            if e["step"] == step and e["group"] == "even"
            for row, i in enumerate(e["sample_ids"].tolist())
        }
        for step in (0, 6)
    }
    if counting:
        assert by_step[0] == dict.fromkeys(range(0, 10, 2), 0)
        assert by_step[6] == {0: 2, 2: 4, 4: 3, 6: 0, 8: 0}
    else:
        assert by_step[6] == dict.fromkeys(range(0, 10, 2))


def test_going_back_to_a_checkpoint_begins_the_next_attempt(
    make_engine: Callable, streams: list, tmp_path: Any
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=probe()):
        train(engine, 2)
        engine.save_checkpoint(tmp_path)
        train(engine, 3)
        engine.load_checkpoint(tmp_path)
        train(engine, 2)
    assert [stream.settings["attempt"] for stream in streams] == [0, 1]
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 3]
    assert [event["step"] for event in streams[1].of("watermark")] == [3]


def test_failure_while_reading_does_not_reach_training(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    plain = train(make_engine(), 7)

    def forward(engine: Any, inputs: Any) -> torch.Tensor:
        raise RuntimeError("no such input")

    engine = make_engine()
    with attach(engine, run="r", probe=probe(forward=forward), check_interval=2) as watch:
        assert train(engine, 7) == plain
        assert not watch.should_stop()
    assert not streams[0].of("observe")
    assert not streams[0].of("watermark")
    assert sum("training goes on" in record.message for record in caplog.records) == 1
    assert engine.module.training


def test_closing_leaves_the_engine_as_it_was(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    step = engine.step
    watch = attach(engine, run="r", probe=probe())
    watch.begin()
    watch.close()
    watch.close()
    assert engine.step == step
    assert streams[0].closed
    assert not any(module._forward_hooks for module in engine.module.layers.modules())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either probe= or stream="),
        ({"probe": probe(), "check_interval": 0}, "check_interval must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_training(
    make_engine: Callable, streams: list, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attach(make_engine(), run="r", **arguments)
    assert not streams


def test_a_probe_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="as many rows everywhere"):
        ProbeGroup(inputs={"tokens": TOKENS[:3]}, sample_ids=torch.arange(2))
    with pytest.raises(ValueError, match="twice"):
        ProbeGroup(inputs={"tokens": TOKENS[:2]}, sample_ids=torch.tensor([1, 1]))


def test_a_job_may_have_its_observations_kept(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    for arguments in (
        {"keep_observations": True},
        {"config": run_pb2.RunConfig(keep_observations=True)},
        {"config": run_pb2.RunConfig(per_layer=True)},
    ):
        with attach(engine, run="r", probe=probe(), **arguments) as watch:
            watch.begin()
    assert [stream.settings["config"].keep_observations for stream in streams] == [True, True, False]
