"""What the scripts beside this one train on: sequences to sort, sequences to learn by heart, a tiny OLMoE."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import OlmoeConfig, OlmoeForCausalLM

from pathwatch.integrations.observing import Probe, ProbeGroup

GROUPS = ("sorting", "noise")
SYMBOLS = 24
LENGTH = 6
SAMPLES = 512
"""Of each group."""
BATCH = 64
"""Of all processes together."""
LEARNING_RATE = 3e-3


class Sequences(Dataset[dict[str, Tensor]]):
    """Some symbols, a separator, then their answer: the same symbols in order, or, as noise, any others."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        prompts_NT = torch.randint(SYMBOLS, (2 * SAMPLES, LENGTH), generator=generator)
        answers_NT = torch.randint(SYMBOLS, (2 * SAMPLES, LENGTH), generator=generator)
        answers_NT[:SAMPLES] = prompts_NT[:SAMPLES].sort(dim=1).values
        separators_N1 = torch.full((2 * SAMPLES, 1), SYMBOLS)
        self.input_ids_NS = torch.cat([prompts_NT, separators_N1, answers_NT], dim=1)
        self.labels_NS = self.input_ids_NS.clone()
        self.labels_NS[:, : LENGTH + 1] = -100

    def __len__(self) -> int:
        return len(self.input_ids_NS)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids_NS[index], "labels": self.labels_NS[index]}


def batches(data: Sequences, *, first_step: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
    """A process's share of the batches of steps `first_step`, `first_step + 1`, …, without end."""
    for step in itertools.count(first_step):
        drawn = torch.randint(len(data), (BATCH,), generator=torch.Generator().manual_seed(step))
        rows = drawn[rank::world_size]
        yield {"input_ids": data.input_ids_NS[rows], "labels": data.labels_NS[rows]}


def make_model() -> OlmoeForCausalLM:
    """Two MoE layers of eight experts, two for each token; 0.2 million parameters, always the same."""
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=SYMBOLS + 1,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=2 * LENGTH + 1,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    return OlmoeForCausalLM(config)


def make_probe(data: Sequences, *, interval: int, samples: int = 128) -> Probe:
    """The first training samples of each group, re-read every `interval` steps."""
    groups = {}
    for number, name in enumerate(GROUPS):
        ids = torch.arange(samples) + number * SAMPLES
        groups[name] = ProbeGroup(
            inputs={"input_ids": data.input_ids_NS[ids]}, sample_ids=ids, labels=data.labels_NS[ids]
        )
    return Probe(groups=groups, interval=interval)


def arguments(description: str | None) -> argparse.Namespace:
    """Command line of every script here."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="127.0.0.1:50051", help="the sidecar, HOST:PORT")
    # Not --run: torchrun would take it for the beginning of its own --run-path.
    parser.add_argument("--run-name", dest="run", required=True, help="name of the run")
    parser.add_argument("--out", type=Path, default=Path("out"), help="checkpoints go here")
    parser.add_argument("--steps", type=int, default=400, help="end here when not stopped before")
    parser.add_argument("--probe-interval", type=int, default=20, help="steps between two readings")
    parser.add_argument("--resume", type=Path, help="go on from this checkpoint")
    return parser.parse_args()
