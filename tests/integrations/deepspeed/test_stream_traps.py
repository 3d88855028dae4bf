"""Stream mode on a real engine: passes, descriptions and failures that would falsify what is read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from pathwatch.integrations.deepspeed import Stream, attach

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
LABELS = TOKENS.roll(1, 1)
EVERY = Stream(window_steps=1, shift_labels=False)


def backward(engine: Any, tokens: torch.Tensor = TOKENS) -> float:
    loss = cross_entropy(engine(tokens).flatten(0, 1), LABELS[: len(tokens)].flatten())
    engine.backward(loss)
    return loss.item()


def step(engine: Any, tokens: torch.Tensor = TOKENS) -> float:
    loss = backward(engine, tokens)
    engine.step()
    return loss


def tell(watch: Any, *sample_ids: int, **more: Any) -> None:
    watch.batch(**{"groups": "a", "sample_ids": sample_ids, "shape": (len(sample_ids), 6), **more})


def seen(stream: Any) -> list[tuple[int, list[int]]]:
    return [(event["step"], event["sample_ids"].tolist()) for event in stream.of("observe")]


def expected_weights(engine: Any, tokens: torch.Tensor) -> np.ndarray:
    """Of the first layer, which does not depend on dropout."""
    module = engine.module
    matrix = module.layers[0].deepspeed_moe.gate.wg.weight
    return (module.embedding(tokens) @ matrix.T).softmax(-1).mean(1).detach().numpy()


def test_only_every_so_many_steps_are_observed_with_all_their_micro_batches(
    make_engine: Callable, streams: list
) -> None:
    engine = make_engine(gradient_accumulation_steps=2)
    with attach(engine, run="r", stream=Stream(window_steps=6, interval=3)) as watch:
        for micro in range(16):
            tell(watch, *range(4 * micro, 4 * micro + 4))
            step(engine)
    assert seen(streams[0]) == [
        (at, list(range(4 * micro, 4 * micro + 4)))
        for at, micro in ((0, 0), (0, 1), (3, 6), (3, 7), (6, 12), (6, 13))
    ]
    # Windows of six steps close, those between are marked as far as they were observed.
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 3, 5, 6]
    assert [event["step"] for event in streams[0].of("geometry")] == [5]


def test_every_window_is_observed_however_long_the_interval(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=Stream(window_steps=2)) as watch:
        for number in range(5):
            tell(watch, *range(4 * number, 4 * number + 4))
            step(engine)
    assert [at for at, _ in seen(streams[0])] == [0, 2, 4]


def test_passes_that_are_not_trainings_take_no_description(make_engine: Callable, streams: list) -> None:
    """An evaluation of any kind inside a described step, and the same batch run twice."""
    engine = make_engine()
    with attach(engine, run="r", stream=EVERY) as watch:
        tell(watch, 0, 1, 2, 3)
        engine.eval()
        engine(TOKENS[:2])
        engine.train()
        with torch.no_grad():
            engine(TOKENS.flip(0))
        with torch.inference_mode():
            engine.module(TOKENS.flip(0))
        expected = expected_weights(engine, TOKENS)
        step(engine)
        backward(engine, TOKENS.flip(0))
        engine.step()
    assert seen(streams[0]) == [(0, [0, 1, 2, 3])]
    np.testing.assert_allclose(streams[0].of("observe")[0]["weights"][:, 0], expected, atol=1e-6)


def test_descriptions_wait_in_line_and_not_beyond_their_step(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(gradient_accumulation_steps=2)
    with attach(engine, run="r", stream=EVERY) as watch:
        for at in range(3):
            tell(watch, 0, 1, 2, 3)
            tell(watch, 4, 5, 6, 7)
            tell(watch, 8, 9, 10, 11)
            expected = expected_weights(engine, TOKENS), expected_weights(engine, TOKENS.flip(0))
            step(engine)
            step(engine, TOKENS.flip(0))
            assert seen(streams[0])[2 * at :] == [(at, [0, 1, 2, 3]), (at, [4, 5, 6, 7])]
            for event, weights in zip(streams[0].of("observe")[2 * at :], expected, strict=True):
                np.testing.assert_allclose(event["weights"][:, 0], weights, atol=1e-6)
    assert caplog.text.count("1 batches were described to watch.batch at step 0 and not trained on") == 1


def test_a_wrong_description_keeps_its_place_in_line(make_engine: Callable, streams: list) -> None:
    """Else the next one would be taken for the batch of the pass it stood for."""
    engine = make_engine(gradient_accumulation_steps=2)
    with attach(engine, run="r", stream=EVERY) as watch:
        tell(watch, 0, 1, 2, shape=(4, 6))
        tell(watch, 4, 5, 6, 7)
        expected = expected_weights(engine, TOKENS.flip(0))
        step(engine)
        step(engine, TOKENS.flip(0))
    assert seen(streams[0]) == [(0, [4, 5, 6, 7])]
    np.testing.assert_allclose(streams[0].of("observe")[0]["weights"][:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_micro_batches_in_flight_under_activation_checkpointing(
    make_engine: Callable, make_model: Callable, streams: list, reentrant: bool
) -> None:
    """Two forward passes, then two backward passes that compute all layers anew."""
    model = make_model(checkpoint=functools.partial(checkpoint, use_reentrant=reentrant), k=3)
    model.embedding.register_forward_hook(lambda _, args, out: out.requires_grad_())
    engine = make_engine(model, gradient_accumulation_steps=2)
    batches = [TOKENS, TOKENS.flip(0)]
    with attach(engine, run="r", stream=EVERY) as watch:
        expected = [expected_weights(engine, tokens) for tokens in batches]
        losses = []
        for number, tokens in enumerate(batches):
            tell(watch, *range(4 * number, 4 * number + 4))
            losses.append(cross_entropy(engine(tokens).flatten(0, 1), LABELS.flatten()))
        for loss in losses:
            engine.backward(loss)
            engine.step()
    assert seen(streams[0]) == [(0, [0, 1, 2, 3]), (0, [4, 5, 6, 7])]
    for event, weights in zip(streams[0].of("observe"), expected, strict=True):
        np.testing.assert_allclose(event["weights"][:, 0], weights, atol=1e-6)


def test_a_pass_that_raises_is_forgotten(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=EVERY) as watch:
        tell(watch, 0, 1, 2, 3)
        with pytest.raises(IndexError):
            engine(TOKENS + 16)
        assert not any(module._forward_hooks for layer in engine.module.layers for module in layer.modules())
        step(engine)
        tell(watch, 4, 5, 6, 7)
        step(engine)
    assert seen(streams[0]) == [(1, [4, 5, 6, 7])]


def test_a_last_batch_of_fewer_rows(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=EVERY) as watch:
        tell(watch, 0, 1, 2, 3)
        step(engine)
        tell(watch, 4)
        step(engine, TOKENS[:1])
    assert seen(streams[0]) == [(0, [0, 1, 2, 3]), (1, [4])]


def test_steps_skipped_on_overflow_count_like_the_engine_counts_them(
    make_engine: Callable, make_model: Callable, streams: list
) -> None:
    engine = make_engine(make_model(), fp16={"enabled": True, "initial_scale_power": 4})
    with attach(engine, run="r", stream=EVERY) as watch:
        for number in range(3):
            tell(watch, *range(4 * number, 4 * number + 4))
            loss = engine(TOKENS).float().square().mean()
            engine.backward(loss * (float("inf") if number == 1 else 1.0))
            engine.step()
    assert (engine.global_steps, engine.skipped_steps) == (3, 1)
    assert seen(streams[0]) == [(n, list(range(4 * n, 4 * n + 4))) for n in range(3)]
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 1, 2]


def test_a_silent_router_is_named_and_the_others_are_not_sent(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    silent = engine.module.layers[1]
    with attach(engine, run="r", stream=EVERY) as watch:
        silent.forward = lambda x: (x, None, None)
        for _ in range(12):
            tell(watch, 0, 1, 2, 3)
            step(engine)
        assert len(streams[0].of("watermark")) == 12, "other ranks wait for them"
    assert not streams[0].of("observe")
    assert caplog.text.count("routed layers 1 gave nothing") == 2, "in one warning, and on giving up"
    assert caplog.text.count("10 training batches in a row and gives stream mode up") == 1


def test_replaced_modules_are_found_again(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    with attach(engine, run="r", stream=EVERY) as watch:
        engine.module.layers[1] = make_engine().module.layers[1]
        for number in range(3):
            tell(watch, *range(4 * number, 4 * number + 4))
            step(engine)
    assert [at for at, _ in seen(streams[0])] == [1, 2], "the pass that showed it is lost"
