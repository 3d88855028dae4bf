"""The callback in a real Trainer: what is observed, saved, stopped, and found again when resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from pathwatch.integrations.observing import Watch
from pathwatch.integrations.transformers import PathwatchCallback, Probe, ProbeGroup, Stream
from pathwatch.v1 import signal_pb2

SAMPLES = torch.randint(1, 16, (4, 6), generator=torch.Generator().manual_seed(2))


def make_probe(**settings: Any) -> Probe:
    group = ProbeGroup(inputs={"input_ids": SAMPLES}, sample_ids=torch.arange(4), labels=SAMPLES)
    return Probe(groups={"a": group}, interval=4, **settings)


class At(TrainerCallback):
    """Calls a function after each step, before the callbacks that come later."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self.act = act

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.act(state.global_step)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_the_probe_is_read_before_training_and_at_its_interval(make_trainer: Callable, streams: list) -> None:
    callback = PathwatchCallback(run="r", probe=make_probe())
    trainer = make_trainer(callback)
    before = weights(trainer.model)
    trainer.train()
    (stream,) = streams
    observed = stream.of("observe")
    assert [event["step"] for event in observed] == [0, 4, 8]
    assert [event["step"] for event in stream.of("geometry")] == [0, 4, 8]
    assert stream.closed
    # Independently: the model as it was, routing weights from the gates' own inputs.
    model = trainer.model.eval()
    model.load_state_dict(before)
    with torch.no_grad():
        output = model(input_ids=SAMPLES, output_router_logits=True)
    expected_LNSK = torch.stack([logits.softmax(-1).reshape(4, 6, -1) for logits in output.router_logits])
    torch.testing.assert_close(
        torch.as_tensor(observed[0]["weights"]), expected_LNSK.mean(2).transpose(0, 1), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("mode", ["probe", "stream"])
def test_training_is_bit_identical_with_and_without(make_trainer: Callable, streams: list, mode: str) -> None:
    what: dict[str, Any] = (
        {"probe": make_probe(), "groups": "source", "sample_ids": "number"}
        if mode == "probe"
        else {"stream": Stream(window_steps=4, interval=2, groups="source", sample_ids="number")}
    )
    plain = make_trainer()
    plain.train()
    watched = make_trainer(PathwatchCallback(run="r", **what))
    watched.train()
    assert streams[0].of("observe")
    expected = weights(plain.model)
    for name, tensor in weights(watched.model).items():
        assert torch.equal(tensor, expected[name]), name


def test_what_the_service_asks_for_is_saved_and_training_stops_where_it_says(
    make_trainer: Callable, streams: list, signal: Callable
) -> None:
    def act(step: int) -> None:
        if step == 1:
            streams[0].signal = signal("CHECKPOINT", step=0)
        if step == 4:
            streams[0].signal = signal("STOP", step=4, stop_at_step=9)

    trainer = make_trainer(
        At(act), PathwatchCallback(run="r", probe=make_probe(), check_interval=1), max_steps=20
    )
    trainer.train()
    assert trainer.state.global_step == 9
    saved = sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert saved == ["checkpoint-2", "checkpoint-9"]
    assert streams[0].of("checkpoint") == [
        {"step": 2, "tag": "checkpoint-2"},
        {"step": 9, "tag": "checkpoint-9"},
    ]


def test_checkpoints_of_trainer_itself_are_registered(make_trainer: Callable, streams: list) -> None:
    make_trainer(PathwatchCallback(run="r", probe=make_probe()), save_strategy="steps", save_steps=3).train()
    assert [event["step"] for event in streams[0].of("checkpoint")] == [3, 6, 8]


def test_a_request_survives_a_save_strategy_that_forgets_it(
    make_trainer: Callable, rows: Callable, streams: list, signal: Callable
) -> None:
    """With save_strategy="best" Trainer overwrites `should_save` at evaluations that are not a new best."""

    def act(step: int) -> None:
        if step == 2:
            streams[0].signal = signal("CHECKPOINT", step=0)

    class Worse(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.best_metric = -1.0

    make_trainer(
        At(act),
        Worse(),
        PathwatchCallback(run="r", probe=make_probe(), check_interval=1),
        eval_dataset=rows(4),
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="best",
        metric_for_best_model="loss",
    ).train()
    assert [event["step"] for event in streams[0].of("checkpoint")] == [4]


@pytest.mark.parametrize("by_metric", [False, True])
def test_the_model_ends_as_the_checkpoint_that_the_service_ranks_best(
    make_trainer: Callable,
    rows: Callable,
    streams: list,
    monkeypatch: pytest.MonkeyPatch,
    by_metric: bool,
) -> None:
    monkeypatch.setattr(Watch, "best_checkpoint", lambda watch: "checkpoint-2")
    kept: dict[str, torch.Tensor] = {}
    more: dict[str, Any] = {"save_total_limit": 2}
    callbacks = []
    if by_metric:
        # The metric prefers later checkpoints: learning goes on.
        more = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
        callbacks = [EarlyStoppingCallback(3)]
    trainer = make_trainer(
        At(lambda step: kept.update(weights(trainer.model)) if step == 2 else None),
        PathwatchCallback(run="r", probe=make_probe(), load_best_model_at_end=True),
        *callbacks,
        eval_dataset=rows(4) if by_metric else None,
        save_strategy="steps",
        save_steps=2,
        **more,
    )
    trainer.train()
    assert trainer.state.global_step == 8
    for name, tensor in weights(trainer.model).items():
        assert torch.equal(tensor, kept[name]), name
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-2"
    assert trainer.args.load_best_model_at_end is by_metric
    left = {path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*")}
    assert {"checkpoint-2", "checkpoint-8"} <= left
    assert by_metric or left == {"checkpoint-2", "checkpoint-8"}


def test_without_a_best_checkpoint_the_model_stays_as_trained_last(
    make_trainer: Callable, streams: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Watch, "best_checkpoint", lambda watch: "checkpoint-77")
    kept: dict[str, torch.Tensor] = {}
    trainer = make_trainer(
        At(lambda step: kept.update(weights(trainer.model))),
        PathwatchCallback(run="r", probe=make_probe(), load_best_model_at_end=True),
        save_strategy="steps",
    )
    trainer.train()
    for name, tensor in weights(trainer.model).items():
        assert torch.equal(tensor, kept[name]), name
    assert "the model stays as trained last" in caplog.text


@pytest.mark.parametrize("restoring", [False, True])
def test_a_resumed_training_is_the_next_attempt_and_goes_on_counting_visits(
    make_trainer: Callable, streams: list, restoring: bool
) -> None:
    def callback() -> PathwatchCallback:
        ids = torch.arange(100, 132, 2)
        group = ProbeGroup(inputs={"input_ids": SAMPLES[:1].expand(16, 6)}, sample_ids=ids)
        return PathwatchCallback(
            run="r",
            probe=Probe(groups={"a": group}, interval=4, visits=True),
            groups="source",
            sample_ids="number",
        )

    settings = {
        "save_strategy": "steps",
        "save_steps": 4,
        "restore_callback_states_from_checkpoint": restoring,
    }
    make_trainer(callback(), **settings).train()
    trainer = make_trainer(callback(), **settings, max_steps=16)
    trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-4"))
    first, second = streams
    assert (first.settings["attempt"], second.settings["attempt"]) == (0, 1)
    assert [event["step"] for event in second.of("observe")] == [4, 8, 12, 16]
    # 32 rows in 8 steps: after 4 steps half were seen, after 8 all once, after 16 all twice.
    for stream, step, total in [(first, 4, None), (first, 8, 16), (second, 4, None), (second, 16, 32)]:
        visits = next(event["visits"] for event in stream.of("observe") if event["step"] == step)
        if total is None:
            assert 0 < visits.sum() < 16
            assert visits.max() == 1
        else:
            assert visits.sum() == total
            assert visits.min() == visits.max()
    at_4 = [
        next(event["visits"] for event in stream.of("observe") if event["step"] == 4).tolist()
        for stream in streams
    ]
    assert at_4[0] == at_4[1]


def test_a_second_training_in_the_same_process_is_another_attempt(
    make_trainer: Callable, streams: list
) -> None:
    trainer = make_trainer(PathwatchCallback(run="r", probe=make_probe()))
    trainer.train()
    trainer.train()
    assert [stream.settings["attempt"] for stream in streams] == [0, 1]
    assert [event["step"] for event in streams[1].of("observe")] == [0, 4, 8]


def test_a_training_that_fails_and_begins_again_is_another_attempt(
    make_trainer: Callable, streams: list
) -> None:
    """As with `auto_find_batch_size`, which halves the batch until it fits."""
    failures = []

    def act(step: int) -> None:
        if step == 2 and not failures:
            failures.append(step)
            raise RuntimeError("CUDA out of memory.")

    trainer = make_trainer(At(act), PathwatchCallback(run="r", probe=make_probe()), auto_find_batch_size=True)
    trainer.train()
    assert failures
    first, second = streams
    assert first.closed
    assert (first.settings["attempt"], second.settings["attempt"]) == (0, 1)
    assert [event["step"] for event in second.of("observe")] == [0, 4, 8]
    # The hooks of the first are gone: each sample is observed once.
    assert [len(event["sample_ids"]) for event in second.of("observe")] == [4, 4, 4]


def test_a_full_disk_costs_the_state_only(
    make_trainer: Callable, streams: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(
        PathwatchCallback(run="r", probe=make_probe()), save_strategy="steps", save_steps=4
    )
    save = type(trainer.state).save_to_json

    def full(state: Any, path: str) -> None:
        if path.endswith(".pathwatch"):
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(type(trainer.state), "save_to_json", full)
    trainer.train()
    assert trainer.state.global_step == 8
    assert json.loads(Path(trainer.args.output_dir, "checkpoint-4", "trainer_state.json").read_text())
    assert "No space left on device" in caplog.text


def test_a_model_without_routers_trains_on(
    make_trainer: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    dense = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    trainer = make_trainer(PathwatchCallback(run="r", probe=make_probe()), model=LlamaForCausalLM(dense))
    trainer.train()
    assert trainer.state.global_step == 8
    assert "observes nothing of run 'r'" in caplog.text
    strict = PathwatchCallback(run="r", probe=make_probe(), strict=True)
    with pytest.raises(ValueError, match=r"router|MoE"):
        make_trainer(strict, model=LlamaForCausalLM(dense)).train()


def test_what_the_service_says_is_logged(make_trainer: Callable, streams: list, signal: Callable) -> None:
    status = signal_pb2.GroupStatus(
        group="a", phase=signal_pb2.PHASE_MEMORIZED, evidence={"path_distance": 3.5}
    )

    def act(step: int) -> None:
        streams[0].signal = signal("CONTINUE", step=0, groups=[status])

    shown: list[dict[str, Any]] = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            shown.append(dict(logs))

    trainer = make_trainer(At(act), PathwatchCallback(run="r", probe=make_probe()), Reporter())
    trainer.train()
    for entry in (shown[0], trainer.state.log_history[0]):
        assert "loss" in entry
        assert entry["Pathwatch/a/path_distance"] == 3.5
        assert entry["Pathwatch/a/phase"] == signal_pb2.PHASE_MEMORIZED


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"stream": Stream(window_steps=4, groups="source")}, {"torch_compile": True}, "use probe mode"),
        (
            {"probe": make_probe(), "groups": "source", "sample_ids": "number"},
            {"torch_compile": True},
            "anew",
        ),
        (
            {"stream": Stream(window_steps=4, groups="source")},
            {"label_smoothing_factor": 0.1},
            "label smoothing",
        ),
        (
            {"probe": make_probe()},
            {"parallelism_config": SimpleNamespace(cp_size=2)},
            "context parallelism over 2 ranks",
        ),
    ],
)
def test_what_would_be_read_wrongly_is_refused(
    make_trainer: Callable,
    streams: list,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    arguments: dict[str, Any],
    message: str,
) -> None:
    parallelism = arguments.pop("parallelism_config", None)
    trainer = make_trainer(PathwatchCallback(run="r", strict=True, **options), **arguments)
    if parallelism is not None:
        monkeypatch.setattr(trainer.args, "parallelism_config", parallelism)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_compiled_model_is_probed(make_trainer: Callable, streams: list) -> None:
    trainer = make_trainer(
        PathwatchCallback(run="r", probe=make_probe()), torch_compile=True, torch_compile_backend="eager"
    )
    trainer.train()
    assert hasattr(trainer.model_wrapped, "_orig_mod")
    assert [event["step"] for event in streams[0].of("observe")] == [0, 4, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": make_probe(), "groups": "source"}, "both columns"),
        ({"stream": Stream(window_steps=4), "groups": "source"}, "in the Stream"),
        ({}, "either probe= or stream="),
        ({"probe": make_probe(), "chekc_interval": 2}, "chekc_interval"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathwatchCallback(run="r", **options)
