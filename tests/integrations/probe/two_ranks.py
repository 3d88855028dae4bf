"""One of two ranks of DeepSpeed jobs, run by test_two_ranks.py: trained without a probe and with one."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from deepspeed.moe.layer import MoE
from transformers import OlmoeConfig, OlmoeForCausalLM

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.integrations.observing import observer

TOKENS = torch.randint(32, (64, 8), generator=torch.Generator().manual_seed(1))
MODES: dict[str, dict[str, Any]] = {
    "zero0-fp32-deepspeed-moe-rsample": {"stage": 0, "moe": "RSample", "accumulation": 2},
    "zero0-fp32-deepspeed-moe-jitter": {"stage": 0, "moe": "Jitter", "accumulation": 1},
    "zero1-fp32-olmoe-checkpointing": {"stage": 1, "reentrant": False, "accumulation": 1},
    "zero2-bf16-olmoe-reentrant-checkpointing": {
        "stage": 2, "bf16": True, "reentrant": True, "accumulation": 2,
    },
    "zero3-fp32-olmoe-checkpointing": {"stage": 3, "reentrant": False, "accumulation": 2},
    "zero3-bf16-olmoe": {"stage": 3, "bf16": True, "accumulation": 1},
}  # fmt: skip


class Restless(torch.nn.Module):
    """DeepSpeed's MoE in a model that draws random numbers of every kind, and counts, in evaluation too."""

    def __init__(self, noise: str) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(32, 12)
        expert = torch.nn.Linear(12, 12)
        self.moe = MoE(12, expert, num_experts=4, k=1, noisy_gate_policy=noise, min_capacity=0)
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(12, 32)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("newest", torch.zeros(()))
        self.balance: torch.Tensor | None = None

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        self.passes += 1
        self.newest = self.passes / 2
        x = self.embedding(input_ids)
        out, self.balance, _ = self.moe(x)
        drawn = random.random() + np.random.rand() + torch.rand(()).item() + self.newest.item()  # noqa: S311
        logits = self.head(x + self.dropout(out)) * (1 + 0.01 * drawn)
        if labels is None:
            return logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return loss + 0.01 * self.balance


def make_model(mode: Mapping[str, Any]) -> torch.nn.Module:
    if "moe" in mode:
        return Restless(mode["moe"])
    config = OlmoeConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        attention_dropout=0.1,
        output_router_logits=True,
    )
    model = OlmoeForCausalLM(config)
    if "reentrant" in mode:
        model.gradient_checkpointing_enable({"use_reentrant": mode["reentrant"]})
    return model


class Stream:
    """Notes what was observed of the probe."""

    def __init__(self, server: str, **settings: Any) -> None:
        self.signal = None
        self.observed: list[tuple[int, list[int]]] = []

    def observe(self, *, step: int, sample_ids: Any, losses: Any, **_: Any) -> None:
        assert losses is not None
        self.observed.append((step, sample_ids.tolist()))

    def geometry(self, **_: Any) -> None: ...

    def watermark(self, step: int) -> None: ...

    def close(self, timeout: float) -> None: ...


def train(mode: Mapping[str, Any], rank: int, probe: Probe | None) -> tuple[dict[str, Any], list[Any]]:
    """What a job leaves behind, and what was observed of it."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(rank)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = make_model(mode)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        config={
            "train_micro_batch_size_per_gpu": 4,
            "gradient_accumulation_steps": mode["accumulation"],
            "zero_optimization": {"stage": mode["stage"], "stage3_param_persistence_threshold": 0},
            "bf16": {"enabled": mode.get("bf16", False)},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1 << 30,
        },
    )
    opened: list[Stream] = []

    def open_stream(server: str, **settings: Any) -> Stream:
        opened.append(Stream(server, **settings))
        return opened[-1]

    observer.RoutingStream = open_stream
    watch = None if probe is None else attach(engine, run="r", probe=probe, strict=True)
    losses = []
    for micro in range(3 * mode["accumulation"]):
        tokens = TOKENS[8 * micro + 4 * rank :][:4]
        if "moe" in mode:
            loss = engine(input_ids=tokens, labels=tokens.roll(-1, 1))
        else:
            loss = engine(input_ids=tokens, labels=tokens).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item().hex())
    left = {
        "losses": losses,
        "optimizer": digest(engine.optimizer.state_dict()),
        "weights": digest([getattr(p, "ds_tensor", p) for p in engine.module.parameters()]),
        "buffers": digest(list(engine.module.buffers())),
        "attributes": digest(
            [vars(m).get(k) for m in model.modules() for k in ("balance", "exp_counts", "l_aux")]
        ),
        "random": digest([torch.get_rng_state(), repr(random.getstate()), repr(np.random.get_state())]),
        "counters": [engine.micro_steps, engine.global_steps, engine.global_samples],
        "modes": [module.training for module in engine.modules()],
        "use_cache": getattr(getattr(model, "config", None), "use_cache", None),
    }
    if watch is not None:
        watch.close()
    return left, opened[0].observed if opened else []


def digest(value: Any) -> str:
    """Hash of all tensors, numbers and words in it."""
    summed = hashlib.sha256()
    for part in flat(value):
        summed.update(part)
    return summed.hexdigest()


def flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield value.detach().float().numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key).encode()
            yield from flat(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    elif isinstance(value, str | int | float | None):
        yield repr(value).encode()


def main(out: Path) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    rank = torch.distributed.get_rank()
    told = {}
    for name, mode in MODES.items():
        group = ProbeGroup(inputs={"input_ids": TOKENS[:7]}, sample_ids=torch.arange(7), labels=TOKENS[:7])
        probe = Probe(groups={"a": group}, interval=2, batch_size=3)
        plain, _ = train(mode, rank, None)
        watched, observed = train(mode, rank, probe)
        told[name] = {"plain": plain, "watched": watched, "observed": observed}
    out.write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
