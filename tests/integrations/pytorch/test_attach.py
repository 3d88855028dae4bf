"""A loop in plain PyTorch in one process: which steps count, what is read, and when nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pathwatch.integrations.pytorch import Probe, ProbeGroup, Stream, attach

TOKENS = torch.randint(16, (8, 6), generator=torch.Generator().manual_seed(1))


def probe(interval: int = 2) -> Probe:
    group = ProbeGroup(inputs={"tokens": TOKENS[:5]}, sample_ids=torch.arange(5), labels=TOKENS[:5])
    return Probe(groups={"a": group}, interval=interval, shift_labels=False)


def backward(model: torch.nn.Module) -> float:
    loss = cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())
    loss.backward()
    return loss.item()


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        losses.append(backward(model))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def read_at(stream: Any) -> list[int]:
    return [event["step"] for event in stream.of("watermark")]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_training_is_bit_identical_with_and_without(
    make_torch_moe: Callable, streams: list, precision: torch.dtype
) -> None:
    """Also when the first reading falls into an autocast block of training."""

    def train(watched: bool) -> tuple[list[float], list[torch.Tensor]]:
        model = make_torch_moe()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        watch = attach(model, optimizer, run="r", probe=probe()) if watched else None
        torch.manual_seed(2)
        losses = []
        for _ in range(6):
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                loss = cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())
            loss.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        if watch is not None:
            watch.close()
        return losses, list(model.parameters())

    plain_losses, plain_weights = train(watched=False)
    losses, weights = train(watched=True)
    assert losses == plain_losses
    assert all(torch.equal(own, other) for own, other in zip(weights, plain_weights, strict=True))
    assert read_at(streams[0]) == [0, 2, 4, 6]


def test_the_probe_runs_in_the_precision_of_training(make_torch_moe: Callable, streams: list) -> None:
    def probe_losses(autocast: bool) -> list[np.ndarray]:
        model = make_torch_moe()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with attach(model, optimizer, run="r", probe=probe(interval=1)):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = model(TOKENS).float().square().mean()
            loss.backward()
            optimizer.step()
        return [event["losses"] for event in streams[-1].of("observe")]

    before, after = probe_losses(autocast=True)
    np.testing.assert_array_equal(before, after)
    assert (probe_losses(autocast=False)[0] != before).any()


def test_steps_go_on_from_a_checkpoint(make_torch_moe: Callable, streams: list) -> None:
    model = make_torch_moe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, start_step=101, run="r", attempt=2, probe=probe()) as watch:
        steps(model, optimizer, 3)
        watch.checkpoint_saved("late")
    assert streams[0].settings["attempt"] == 2
    assert read_at(streams[0]) == [102, 104]
    saved = streams[0].of("checkpoint")
    assert [(event["step"], event["tag"]) for event in saved] == [(104, "late")]
    with pytest.raises(ValueError, match="start_step must be at least 0, got -1"):
        attach(model, optimizer, start_step=-1, run="r", probe=probe())


def test_only_steps_that_the_optimizer_did_are_counted(make_torch_moe: Callable, streams: list) -> None:
    """Two micro-batches a step; one step skipped by the gradient scaler, whose gradients had overflowed."""
    model = make_torch_moe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with attach(model, optimizer, run="r", probe=probe(interval=1)):
        for step in range(4):
            for _ in range(2):
                scaler.scale(cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())).backward()
            if step == 1:
                model.head.weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert read_at(streams[0]) == [0, 1, 2, 3]


def test_evaluation_before_training_does_not_begin_it(make_torch_moe: Callable, streams: list) -> None:
    model = make_torch_moe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, run="r", probe=probe()):
        model.eval()(TOKENS)
        with torch.no_grad():
            model.train()(TOKENS)
        assert not streams
        steps(model, optimizer, 1)
        assert read_at(streams[0]) == [0]


def test_a_closed_watch_leaves_nothing_behind(make_torch_moe: Callable, streams: list) -> None:
    model = make_torch_moe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for trained in (0, 2):
        with attach(model, optimizer, run="r", probe=probe(interval=1)):
            steps(model, optimizer, trained)
        steps(model, optimizer, 1)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert read_at(streams[0]) == [0, 1, 2]


def test_stream_mode_observes_training_batches(make_torch_moe: Callable, streams: list) -> None:
    model = make_torch_moe()
    model.dropout.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stream = Stream(window_steps=2, interval=1, shift_labels=False)
    with attach(model, optimizer, run="r", stream=stream) as watch:
        losses = []
        for step in range(3):
            watch.batch(groups="a", sample_ids=range(8 * step, 8 * step + 8), shape=(8, 6), labels=TOKENS)
            losses += steps(model, optimizer, 1)
    observed = streams[0].of("observe")
    assert [(event["step"], event["sample_ids"].tolist()) for event in observed] == [
        (step, list(range(8 * step, 8 * step + 8))) for step in range(3)
    ]
    np.testing.assert_allclose([event["losses"].mean() for event in observed], losses, rtol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_model_is_probed(make_torch_moe: Callable, streams: list, in_place: bool) -> None:
    def probed(compiled: bool) -> list[np.ndarray]:
        model = make_torch_moe()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        called = model
        if compiled and in_place:
            model.compile(backend="aot_eager")
        elif compiled:
            called = torch.compile(model, backend="aot_eager")
        model.dropout.p = 0.0
        steps(called, optimizer, 1)
        with attach(called, optimizer, run="r", probe=probe()):
            steps(called, optimizer, 4)
        return [event["weights"] for event in streams[-1].of("observe")]

    eager = probed(compiled=False)
    np.testing.assert_allclose(probed(compiled=True), eager, atol=1e-5)
    assert len(eager) == 3


def test_a_model_without_routers_trains_on_unobserved(
    streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(16, 16), torch.nn.Linear(16, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, run="r", probe=probe()) as watch:
        steps(model, optimizer, 2)
        assert not watch.should_checkpoint()
        assert not watch.should_stop()
    assert not streams
    assert caplog.text.count("training goes on: no routers found in Sequential") == 1
    with pytest.raises(ValueError, match="no routers found in Sequential"):
        attach(model, optimizer, run="r", probe=probe(), strict=True)
