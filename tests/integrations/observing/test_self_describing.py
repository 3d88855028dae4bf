"""Batches that describe themselves by the inputs of forward, on a transformers model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax
from torch.overrides import TorchFunctionMode
from transformers import OlmoeConfig, OlmoeForCausalLM

from pathwatch.integrations.observing import Settings, Stream, Watch
from pathwatch.integrations.pytorch import ModuleJob

B, S, V, K = 3, 8, 32, 4
TOKENS = torch.randint(V, (B, S), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> OlmoeForCausalLM:
    torch.manual_seed(0)
    config = OlmoeConfig(
        num_hidden_layers=2,
        hidden_size=16,
        intermediate_size=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=K,
        num_experts_per_tok=2,
        vocab_size=V,
        eos_token_id=None,
        pad_token_id=0,
    )
    return OlmoeForCausalLM(config).train()


class Training:
    """Steps of a model under a watch; what they gave, by group and sample."""

    def __init__(self, model: torch.nn.Module, streams: list, **stream: Any) -> None:
        self.model = model
        self.steps = 0
        self._streams = streams
        mode = Stream(window_steps=100, **{"interval": 1, "groups": lambda inputs: "a", **stream})
        self.watch = Watch(ModuleJob(model, lambda: self.steps), Settings(run="r", stream=mode))
        self.watch.begin()

    def step(self, *args: Any, **inputs: Any) -> Any:
        output = self.model(*args, **inputs)
        self.steps += 1
        self.watch.after_step()
        return output

    def events(self) -> list[dict[str, Any]]:
        return self._streams[-1].of("observe")

    def samples(self) -> list[dict[str, Any]]:
        """One per sample, in the order sent."""
        keys = ("sample_ids", "weights", "losses", "token_counts", "target_token_counts")
        return [
            {"group": event["group"], "step": event["step"]}
            | {key: None if event[key] is None else np.asarray(event[key])[row] for key in keys}
            for event in self.events()
            for row in range(len(event["sample_ids"]))
        ]


def oracle_losses(model: torch.nn.Module, **inputs: Any) -> torch.Tensor:
    """[B, S - 1] losses of the next token, of a pass of its own."""
    with torch.no_grad():
        logits = model(**inputs).logits
    labels = inputs["input_ids"][:, 1:]
    return -log_softmax(logits[:, :-1].double(), -1).gather(2, labels[..., None])[..., 0]


def test_labels_padding_and_groups_are_taken_from_the_inputs(model: OlmoeForCausalLM, streams: list) -> None:
    mask = torch.ones(B, S, dtype=torch.int64)
    mask[1, 5:] = 0
    mask[2, :3] = 0
    labels = TOKENS.masked_fill(mask == 0, -100)
    labels[0, :4] = -100
    given = []

    def groups(inputs: Any) -> list[str]:
        given.append(sorted(inputs))
        return ["math", "code", "math"]

    training = Training(model, streams, groups=groups, sample_ids=lambda inputs: [7, 8, 9])
    losses = oracle_losses(model, input_ids=TOKENS, attention_mask=mask)
    training.step(TOKENS, mask, labels=labels)
    assert given == [["attention_mask", "input_ids", "labels"]], "positional ones by the names of forward"
    found = {int(sample["sample_ids"]): sample for sample in training.samples()}
    assert {i: sample["group"] for i, sample in found.items()} == {7: "math", 8: "code", 9: "math"}
    assert {i: int(sample["token_counts"]) for i, sample in found.items()} == {7: 8, 8: 5, 9: 5}
    for i, targets in ((7, losses[0, 3:]), (8, losses[1, :4]), (9, losses[2, 3:])):
        assert found[i]["target_token_counts"] == len(targets)
        assert found[i]["losses"] == pytest.approx(targets.mean().item(), abs=1e-4)


def test_groups_and_ids_may_come_as_keywords_of_their_own(
    model: OlmoeForCausalLM, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(model, streams, groups="domain", sample_ids="row", interval=2)
    for step in range(4):
        training.step(input_ids=TOKENS, domain=["x", "y", "x"], row=torch.tensor([step, 1, 2]))
    model(input_ids=TOKENS, domain=["x"], row=None)
    training.step(input_ids=TOKENS)
    assert [(s["step"], s["group"], int(s["sample_ids"])) for s in training.samples()] == [
        (0, "x", 0),
        (0, "x", 2),
        (0, "y", 1),
        (2, "x", 2),
        (2, "x", 2),
        (2, "y", 1),
    ]
    assert "called without the keyword 'domain' that Stream(groups=...) names" in caplog.text
    training.watch.close()


def test_without_ids_samples_are_known_by_their_tokens(model: OlmoeForCausalLM, streams: list) -> None:
    training = Training(model, streams)
    mask = torch.ones(B, S, dtype=torch.int64)
    training.step(input_ids=TOKENS)
    training.step(input_ids=TOKENS.flip(0), attention_mask=mask)
    padded = torch.cat([torch.zeros(B, 2, dtype=torch.int64), TOKENS], 1)
    training.step(input_ids=padded, attention_mask=torch.cat([mask[:, :2] * 0, mask], 1))
    ids = [int(sample["sample_ids"]) for sample in training.samples()]
    assert ids[:3] == ids[5:2:-1] == ids[6:]
    assert len(set(ids)) == B


def test_packed_rows_by_positions_and_by_offsets(
    model: OlmoeForCausalLM, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sample has its own tokens and losses; none at the border, where one would predict the next."""
    first, second = TOKENS[:1, :5], TOKENS[1:2, :3]
    packed = torch.cat([first, second], 1)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    labels = packed.clone()
    labels[:, 5] = -100
    inputs = {"input_ids": packed, "position_ids": positions, "labels": labels}
    losses = oracle_losses(model, input_ids=packed, position_ids=positions)[0]
    expected = [losses[:4].mean().item(), losses[5:].mean().item()]
    offsets = torch.tensor([0, 5, 8], dtype=torch.int32)
    for stream, more in (
        ({"samples_per_row": 4}, {}),
        ({"groups": lambda inputs: ["a", "b"]}, {}),
        ({}, {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "max_length_q": 5, "max_length_k": 5}),
    ):
        training = Training(model, streams, **stream)
        training.step(**inputs, **more)
        training.watch.close()
        samples = training.samples()
        assert [int(sample["token_counts"]) for sample in samples] == [5, 3]
        assert [sample["losses"] for sample in samples] == pytest.approx(expected, abs=1e-4)
    assert not caplog.text
    training = Training(model, streams)
    training.step(**inputs)
    assert not training.samples(), "two samples as one would be a wrong reading"
    assert "a row held 1 packed samples more than were told: Stream(samples_per_row=2)" in caplog.text


def test_labels_that_are_shifted_already(model: OlmoeForCausalLM, streams: list) -> None:
    """As under sequence parallelism; the model takes `shift_labels` beside `labels`."""
    training = Training(model, streams)
    shifted = TOKENS.roll(-1, 1)
    shifted[:, -1] = -100
    losses = oracle_losses(model, input_ids=TOKENS)
    training.step(input_ids=TOKENS, labels=TOKENS, shift_labels=shifted, num_items_in_batch=B * (S - 1))
    found = [sample["losses"] for sample in training.samples()]
    assert found == pytest.approx(losses.mean(1).tolist(), abs=1e-4)


class Calls(TorchFunctionMode):
    """Counts torch functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def test_the_models_own_loss_is_not_computed_twice(model: OlmoeForCausalLM, streams: list) -> None:
    training = Training(model, streams, interval=2)
    names = ("cross_entropy", "log_softmax", "nll_loss")
    seen = []
    for _ in range(2):
        with Calls() as calls:
            training.step(input_ids=TOKENS, labels=TOKENS)
        seen.append([calls.counts[name] for name in names])
    assert seen == [[0, 1, 1], [1, 0, 0]], "observed: in two halves; not observed: as ever"
    with Calls() as calls:
        training.step(input_ids=TOKENS, shift_labels=TOKENS)
    assert [calls.counts[name] for name in names] == [1, 0, 0], "labels for us alone cost one"


@contextmanager
def device_reads() -> Iterator[list[str]]:
    """Names of the calls that would make a device's queue drain."""
    names = ("item", "cpu", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero")
    reads: list[str] = []
    own = {name: getattr(torch.Tensor, name) for name in names}

    def noted(name: str) -> Callable[..., Any]:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return own[name](tensor, *args, **kwargs)

        return call

    for name in names:
        setattr(torch.Tensor, name, noted(name))
    try:
        yield reads
    finally:
        for name, method in own.items():
            setattr(torch.Tensor, name, method)


def test_an_observed_pass_reads_nothing_off_the_device(model: OlmoeForCausalLM, streams: list) -> None:
    mask = torch.ones(B, S, dtype=torch.int64)
    positions = torch.arange(S).expand(B, S)
    inputs = {"input_ids": TOKENS, "attention_mask": mask, "position_ids": positions, "labels": TOKENS}
    with device_reads() as plain:
        model(**inputs)
    training = Training(model, streams)
    with device_reads() as observed:
        model(**inputs)
    training.steps += 1
    training.watch.after_step()
    assert observed == plain
    assert len(training.samples()) == B


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": lambda inputs: inputs["domain"]}, r"Stream\(groups=...\) raised KeyError: 'domain'"),
        ({"groups": lambda inputs: ["a"] * 7}, "3 rows came with no sample ids and 7 groups"),
        ({"groups": lambda inputs: None}, "the groups function gave None"),
        ({"sample_ids": lambda inputs: [1, 2]}, "3 rows came with 2 sample ids and 3 groups"),
    ],
)
def test_what_cannot_be_read_costs_readings_and_then_stream_mode(
    model: OlmoeForCausalLM,
    streams: list,
    caplog: pytest.LogCaptureFixture,
    wrong: dict[str, Any],
    message: str,
) -> None:
    import re

    training = Training(model, streams, **wrong)
    for _ in range(12):
        training.step(input_ids=TOKENS)
    assert not training.samples()
    assert [event["step"] for event in streams[-1].of("watermark")] == list(range(12))
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert re.search(message, warnings[0].message)
    assert sum("gives stream mode up" in record.message for record in caplog.records) == 1


def test_a_function_that_fails_now_and_then_goes_on(model: OlmoeForCausalLM, streams: list) -> None:
    calls = iter(range(100))

    def groups(inputs: Any) -> str:
        if next(calls) % 2:
            raise RuntimeError("no tags")
        return "a"

    training = Training(model, streams, groups=groups)
    for _ in range(30):
        training.step(input_ids=TOKENS)
    assert [event["step"] for event in training.events()] == list(range(0, 30, 2))


def test_training_is_the_same_to_the_bit(model: OlmoeForCausalLM, streams: list) -> None:
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def train(watched: bool) -> list[torch.Tensor]:
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        training = Training(model, streams, interval=2) if watched else None
        for _ in range(4):
            inputs = {"input_ids": TOKENS, "labels": TOKENS}
            output = model(**inputs) if training is None else training.step(**inputs)
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
        if training is not None:
            training.watch.close()
        return [parameter.detach().clone() for parameter in model.parameters()]

    plain, watched = train(False), train(True)
    assert len(streams[-1].of("observe")) == 2
    assert all(torch.equal(own, other) for own, other in zip(watched, plain, strict=True))


def test_a_model_whose_forward_takes_the_batch_whole(streams: list, model: OlmoeForCausalLM) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.model(input_ids=batch["tokens"]).logits

    training = Training(Whole(), streams, groups=lambda inputs: [str(g) for g in inputs["tags"]])
    training.step({"tokens": TOKENS, "tags": (1, 2, 1), "labels": TOKENS})
    losses = oracle_losses(model, input_ids=TOKENS).mean(1)
    found = {sample["group"]: sample["losses"] for sample in training.samples()}
    assert found["2"] == pytest.approx(losses[1].item(), abs=1e-4)
