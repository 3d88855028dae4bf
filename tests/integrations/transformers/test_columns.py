"""Stream mode in a real Trainer: whose samples they are, from columns of the data, through any collator."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import DataCollatorWithFlattening

from pathwatch.integrations.transformers import PathwatchCallback, Stream, obstacles

BY_COLUMNS = {"groups": "source", "sample_ids": "number"}


def make_callback(**settings: Any) -> PathwatchCallback:
    stream = Stream(**{"window_steps": 4, "interval": 1, **BY_COLUMNS, **settings})
    return PathwatchCallback(run="r", stream=stream)


def padding_collator(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads in front, and, as tokenizers' collators do, makes tensors of all it is given."""
    longest = max(len(feature["input_ids"]) for feature in features)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for feature in features:
        tokens = feature.pop("input_ids").tolist()
        labels = feature.pop("labels").tolist()
        missing = longest - len(tokens)
        batch["input_ids"].append([0] * missing + tokens)
        batch["labels"].append([-100] * missing + labels)
        batch["attention_mask"].append([0] * missing + [1] * len(tokens))
        for name, value in feature.items():
            batch.setdefault(name, []).append(value)
    return {name: torch.tensor(values) for name, values in batch.items()}


def observed(stream: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """(group, id) → what was last sent of the sample."""
    return {
        (event["group"], int(number)): {
            "step": event["step"],
            "weights": event["weights"][n],
            "loss": event["losses"][n],
            "tokens": int(event["token_counts"][n]),
        }
        for event in stream.of("observe")
        for n, number in enumerate(event["sample_ids"])
    }


def expected_weights(model: torch.nn.Module, tokens: torch.Tensor) -> np.ndarray:
    """[L, K] mean routing weights of one sequence, from the model's own router logits."""
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=tokens[None], output_router_logits=True).router_logits
    return torch.stack([layer.softmax(-1).mean(0) for layer in logits]).numpy()


def test_every_row_of_the_data_is_observed_under_its_own_group_and_id(
    make_trainer: Callable, rows: Callable, streams: list
) -> None:
    make_trainer(make_callback()).train()
    assert set(observed(streams[0])) == {("ab"[i % 2], 100 + i) for i in range(len(rows()))}
    assert [event["step"] for event in streams[0].of("watermark")] == list(range(8))


@pytest.mark.parametrize("arguments", [{}, {"gradient_checkpointing": True}, {"bf16": True}])
def test_weights_and_losses_are_those_of_an_independent_pass(
    make_trainer: Callable, make_model: Callable, rows: Callable, streams: list, arguments: dict[str, Any]
) -> None:
    lengths = [3 + i % 4 for i in range(32)]
    data = rows(lengths=lengths)
    model = make_model(attention_dropout=0.0)
    make_trainer(
        make_callback(),
        model=model,
        data=data,
        data_collator=padding_collator,
        learning_rate=0.0,
        **arguments,
    ).train()
    tolerance = 2e-2 if arguments.get("bf16") else 1e-5
    seen = observed(streams[0])
    assert len(seen) == 32
    for i in range(32):
        row = data[i]
        sample = seen["ab"[i % 2], 100 + i]
        assert sample["tokens"] == lengths[i]
        np.testing.assert_allclose(
            sample["weights"], expected_weights(model, row["input_ids"]), atol=tolerance
        )
        with torch.no_grad():
            loss = model(input_ids=row["input_ids"][None], labels=row["labels"][None]).loss
        assert sample["loss"] == pytest.approx(float(loss), abs=tolerance * 2)


def test_packed_batches_give_one_observation_per_sample(
    make_trainer: Callable, make_model: Callable, rows: Callable, streams: list
) -> None:
    lengths = [3 + i % 4 for i in range(32)]
    data = rows(lengths=lengths)
    model = make_model(attention_dropout=0.0)
    make_trainer(
        make_callback(), model=model, data=data, data_collator=DataCollatorWithFlattening(), learning_rate=0.0
    ).train()
    seen = observed(streams[0])
    assert len(seen) == 32
    for i in range(32):
        sample = seen["ab"[i % 2], 100 + i]
        assert sample["tokens"] == lengths[i]
        np.testing.assert_allclose(
            sample["weights"], expected_weights(model, data[i]["input_ids"]), atol=1e-5
        )


def test_micro_batches_belong_to_one_step_and_only_observed_steps_are_sent(
    make_trainer: Callable, streams: list
) -> None:
    make_trainer(make_callback(interval=2), gradient_accumulation_steps=2, max_steps=4).train()
    by_step: dict[int, int] = {}
    for event in streams[0].of("observe"):
        by_step[event["step"]] = by_step.get(event["step"], 0) + len(event["sample_ids"])
    assert by_step == {0: 8, 2: 8}


def test_evaluation_passes_are_not_observed_and_need_no_columns(
    make_trainer: Callable, rows: Callable, streams: list
) -> None:
    trainer = make_trainer(
        make_callback(), eval_dataset=rows(8), eval_strategy="steps", eval_steps=2, eval_on_start=True
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    assert sum(len(event["sample_ids"]) for event in streams[0].of("observe")) == 32
    assert sum("eval_loss" in entry for entry in trainer.state.log_history) >= 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataloader_num_workers": 2},
        {"remove_unused_columns": False},
        {"dataloader_persistent_workers": True, "dataloader_num_workers": 1},
    ],
)
def test_columns_come_through_workers_and_unpruned_data(
    make_trainer: Callable, streams: list, arguments: dict[str, Any]
) -> None:
    make_trainer(make_callback(), **arguments).train()
    assert len(observed(streams[0])) == 32


def test_columns_come_through_a_resumed_epoch(make_trainer: Callable, streams: list) -> None:
    settings = {"save_strategy": "steps", "save_steps": 5}
    trainer = make_trainer(make_callback(), **settings)
    trainer.train()
    make_trainer(make_callback(), **settings).train(
        resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-5"
    )
    first, second = (observed(stream) for stream in streams)
    later = {key for key, sample in first.items() if sample["step"] >= 5}
    assert len(later) == 12
    assert set(second) == later


def test_rows_without_the_columns_are_trained_on_unobserved(
    make_trainer: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(make_callback(groups="topic"))
    trainer.train()
    assert trainer.state.global_step == 8
    assert not streams[0].of("observe")
    assert "'topic'" in caplog.text
    assert "'source'" in caplog.text


class Pruned(IterableDataset):
    """As a `datasets.Dataset` of which Trainer removed the columns that the model does not take."""

    column_names = ["input_ids", "labels"]  # noqa: RUF012

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __iter__(self) -> Any:
        return ({"input_ids": row["input_ids"], "labels": row["labels"]} for row in self.whole)


class Streamed(IterableDataset):
    """Rows that come one after the other."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __iter__(self) -> Any:
        return (self.whole[i] for i in range(len(self.whole)))


def test_columns_come_from_an_iterable_dataset_too(
    make_trainer: Callable, rows: Callable, streams: list
) -> None:
    # As it must be where the process belongs to a group, of one rank even, as other tests may have it.
    settings = {"accelerator_config": {"dispatch_batches": False}}
    make_trainer(make_callback(), data=Streamed(rows()), **settings).train()
    assert len(observed(streams[0])) == 32


def test_columns_that_would_be_lost_on_the_way_to_other_ranks_are_not_carried(
    make_trainer: Callable,
    rows: Callable,
    streams: list,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On several ranks accelerate reads an iterable dataset on one, and fails over what is no tensor."""
    state = SimpleNamespace(num_processes=2, distributed_type="MULTI_CPU")
    monkeypatch.setattr(obstacles, "AcceleratorState", lambda: state)

    trainer = make_trainer(make_callback(), data=Streamed(rows()))
    passed: list[set[str]] = []
    step = trainer.training_step

    def training_step(model: Any, inputs: dict[str, Any], *more: Any) -> torch.Tensor:
        passed.append(set(inputs))
        return step(model, inputs, *more)

    trainer.training_step = training_step
    trainer.train()
    assert passed == [{"input_ids", "labels"}] * 8
    assert '"dispatch_batches": False' in caplog.text


def test_columns_that_trainer_removed_are_missed_before_training(
    make_trainer: Callable, rows: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    data = Pruned([rows()[i] for i in range(32)])
    trainer = make_trainer(make_callback(), data=data)
    trainer.train()
    assert trainer.state.global_step == 8
    assert "remove_unused_columns=False" in caplog.text
    strict = PathwatchCallback(run="r", stream=Stream(window_steps=4, **BY_COLUMNS), strict=True)
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        make_trainer(strict, data=data).train()


def test_a_watch_that_gave_up_leaves_no_columns_to_the_model(
    make_trainer: Callable, make_model: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    """The loss function of transformers' models would raise over unknown keywords."""
    from pathwatch.integrations.observing import observer

    with pytest.MonkeyPatch.context() as patch:

        def broken(*args: Any, **kwargs: Any) -> None:
            raise OSError("no")

        patch.setattr(observer.Observer, "__init__", broken)
        trainer = make_trainer(make_callback())
        trainer.train()
    assert trainer.state.global_step == 8
    assert "observes nothing" in caplog.text
