"""One rank of two under Trainer, run by test_two_ranks.py: trains, and writes what it saw and sent."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import OlmoeConfig, OlmoeForCausalLM, Trainer, TrainerCallback, TrainingArguments

from pathwatch.integrations.observing import Watch, observer
from pathwatch.integrations.transformers import PathwatchCallback, Probe, ProbeGroup, Stream
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(1, 16, (32, 6), generator=torch.Generator().manual_seed(1))


class Rows(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return len(TOKENS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": TOKENS[index], "labels": TOKENS[index], "source": "all", "number": index}


class Kept:
    """Keeps what it is sent."""

    def __init__(self, server: str, **settings: Any) -> None:
        self.signal: signal_pb2.Signal | None = None
        self.observed: list[tuple[int, int, int]] = []
        self.geometry_sent: dict[int, float] = {}

    def observe(self, *, step: int, sample_ids: Any, visits: Any, **_: Any) -> None:
        counts = [-1] * len(sample_ids) if visits is None else visits.tolist()
        self.observed.extend((step, i, v) for i, v in zip(sample_ids.tolist(), counts, strict=True))

    def geometry(self, *, step: int, gram_self: Any, **_: Any) -> None:
        self.geometry_sent[step] = float(gram_self.trace(axis1=1, axis2=2).sum())

    def watermark(self, step: int) -> None: ...

    def register_checkpoint(self, **_: Any) -> None: ...

    def flush(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None: ...


class Service(TrainerCallback):
    """Says what a service would, and notes what comes of it."""

    def __init__(self, streams: list[Kept]) -> None:
        self.streams = streams
        self.saved: list[int] = []
        self.squares: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        step = state.global_step
        if state.is_world_process_zero:
            self.streams[-1].signal = (
                signal_pb2.Signal(step=0, action=signal_pb2.ACTION_CHECKPOINT)
                if step < 4
                else signal_pb2.Signal(step=4, action=signal_pb2.ACTION_STOP, stop_at_step=12)
            )
        if step in (3, 12):
            self.squares[step] = squares(model)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved.append(state.global_step)


def squares(model: nn.Module) -> float:
    """Sum of squares of all parameters, whole."""
    parameters = list(model.parameters())
    if not hasattr(parameters[0], "ds_id"):
        return sum(float(parameter.square().sum()) for parameter in parameters)
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters):
        return sum(float(parameter.square().sum()) for parameter in parameters)


def make_model() -> OlmoeForCausalLM:
    torch.manual_seed(0)
    return OlmoeForCausalLM(
        OlmoeConfig(
            vocab_size=16,
            hidden_size=16,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def main(out: Path, mode: str) -> None:
    warnings.simplefilter("ignore")
    opened: list[Kept] = []

    def open_stream(server: str, **settings: Any) -> Kept:
        opened.append(Kept(server, **settings))
        return opened[-1]

    observer.RoutingStream = open_stream  # type: ignore[assignment,misc]
    Watch.best_checkpoint = lambda watch, group=None: "checkpoint-3"  # type: ignore[method-assign]
    more: dict[str, Any] = {}
    if mode == "zero3":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        more["deepspeed"] = {
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "steps_per_print": 1 << 30,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            "zero_force_ds_cpu_optimizer": False,
        }

    def train(model: nn.Module, callback: PathwatchCallback) -> tuple[Trainer, Service]:
        service = Service(opened)
        args = TrainingArguments(
            output_dir=str(out.parent / "out"),
            max_steps=20,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            ddp_backend="gloo",
            **more,
        )
        trainer = Trainer(model=model, args=args, train_dataset=Rows(), callbacks=[service, callback])
        trainer.train()
        return trainer, service

    model = make_model()
    gates = [tensor for name, tensor in model.state_dict().items() if name.endswith("gate.weight")]
    expected_geometry = sum(float(gate.square().sum()) for gate in gates)
    group = ProbeGroup(inputs={"input_ids": TOKENS[:7]}, sample_ids=torch.arange(7), labels=TOKENS[:7])
    names: dict[str, Any] = {"groups": "source", "sample_ids": "number"}
    probe = Probe(groups={"all": group}, interval=4, batch_size=2, visits=True)
    options: dict[str, Any] = {"run": "r", "check_interval": 2, "strict": True}
    trainer, service = train(
        model, PathwatchCallback(probe=probe, load_best_model_at_end=True, **names, **options)
    )
    result = {
        "stopped_at": trainer.state.global_step,
        "saved": service.saved,
        "observed": opened[0].observed,
        "geometry": opened[0].geometry_sent,
        "expected_geometry": expected_geometry,
        "best": Path(trainer.state.best_model_checkpoint or "").name,
        "squares": squares(trainer.model),
        "squares_at_best": service.squares[3],
        "squares_at_end": service.squares[12],
    }
    if mode == "ddp":
        train(make_model(), PathwatchCallback(stream=Stream(window_steps=4, interval=1, **names), **options))
        result["streamed"] = opened[1].observed
    out.write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
