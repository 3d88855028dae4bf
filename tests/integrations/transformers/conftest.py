"""A tiny mixture of experts, and Trainers of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import OlmoeConfig, OlmoeForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

TOKENS = torch.randint(1, 16, (32, 6), generator=torch.Generator().manual_seed(1))


class Rows(Dataset[dict[str, Any]]):
    """Row i is token sequence i, of group a or b in turn, with id 100 + i."""

    def __init__(self, count: int = 32, *, lengths: Sequence[int] | None = None) -> None:
        self.count = count
        self.lengths = lengths

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = TOKENS[index][: None if self.lengths is None else self.lengths[index]]
        return {
            "input_ids": tokens,
            "labels": tokens.clone(),
            "source": "ab"[index % 2],
            "number": 100 + index,
        }


def _make_model(**config: Any) -> OlmoeForCausalLM:
    set_seed(0)
    settings = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "attention_dropout": 0.1,
    }
    return OlmoeForCausalLM(OlmoeConfig(**settings | config))


@pytest.fixture
def make_model() -> Callable[..., OlmoeForCausalLM]:
    """Seeded; with dropout."""
    return _make_model


@pytest.fixture
def rows() -> Callable[..., Rows]:
    """The training data, whole or a part."""
    return Rows


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A Trainer of 8 steps on the CPU that saves nothing by itself; further training arguments by name."""

    def make(
        *callbacks: TrainerCallback,
        model: torch.nn.Module | None = None,
        data: Dataset[Any] | None = None,
        data_collator: Callable[..., Any] | None = None,
        eval_dataset: Dataset[Any] | None = None,
        **arguments: Any,
    ) -> Trainer:
        settings = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 4,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "seed": 3,
        }
        return Trainer(
            model=_make_model() if model is None else model,
            args=TrainingArguments(**settings | arguments),
            train_dataset=Rows() if data is None else data,
            eval_dataset=eval_dataset,
            data_collator=data_collator,
            callbacks=list(callbacks),
        )

    return make
