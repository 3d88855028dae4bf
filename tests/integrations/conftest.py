"""Small models to read, DeepSpeed on one process, and a stream that keeps what it is given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ports
import pytest
import torch
from forked_ranks import ForkedRank
from torch import nn

from pathwatch.integrations.observing import observer, sidecar, watch
from pathwatch.v1 import signal_pb2

NOBODY = "127.0.0.1:1"
"""Where no server listens."""


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    return ports.lasting_port()


@pytest.fixture(scope="session")
def deepspeed_world() -> Iterator[None]:
    """DeepSpeed over gloo in this process alone."""
    os.environ.update(
        DS_ACCELERATOR="cpu",
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(ports.lasting_port()),
    )
    import deepspeed

    # It would be compiled first, and gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    yield
    torch.distributed.destroy_process_group()


class Sequence(nn.Module):
    """Embedding, DeepSpeed MoE layers with dropout, head: tokens [B, S] → logits [B, S, V]."""

    def __init__(self, *, layers: int, noise: str | None, k: int, checkpoint: Callable | None) -> None:
        super().__init__()
        from deepspeed.moe.layer import MoE

        self.embedding = nn.Embedding(16, 12)
        expert = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 12))
        self.layers = nn.ModuleList(
            MoE(12, expert, num_experts=4, k=k, noisy_gate_policy=noise, min_capacity=0)
            for _ in range(layers)
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(12, 16)
        self.checkpoint = checkpoint

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:

            def run(x: torch.Tensor, layer: nn.Module = layer) -> torch.Tensor:
                return x + self.dropout(layer(x)[0])

            x = self.checkpoint(run, x) if self.checkpoint is not None and self.training else run(x)
        return self.head(x)


@pytest.fixture
def make_model(deepspeed_world: None) -> Callable[..., Sequence]:
    """Seeded; with `checkpoint` a function that runs a layer under activation checkpointing."""

    def make(
        *, layers: int = 2, noise: str | None = None, k: int = 2, checkpoint: Callable | None = None
    ) -> Sequence:
        torch.manual_seed(0)
        return Sequence(layers=layers, noise=noise, k=k, checkpoint=checkpoint)

    return make


@pytest.fixture
def make_engine(make_model: Callable[..., Sequence]) -> Callable[..., object]:
    """A DeepSpeed engine around the model; settings are added to its configuration."""

    def make(model: nn.Module | None = None, **settings: object) -> object:
        import deepspeed

        model = make_model() if model is None else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        config = {"train_micro_batch_size_per_gpu": 4, "steps_per_print": 1 << 30, **settings}
        return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]

    return make


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a real sidecar are awaited: a job gives them 2 s, in which a busy machine may stall."""
    monkeypatch.setattr(sidecar, "_TIMEOUT", 60.0)
    monkeypatch.setattr(watch, "_ARRIVES_WITHIN", 60.0)


@dataclass
class KeptStream:
    """Stands in for `RoutingStream`, and keeps what it is given."""

    settings: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    signal: signal_pb2.Signal | None = None
    closed: bool = False

    def observe(self, **arguments: Any) -> None:
        self.events.append(("observe", arguments))

    def geometry(self, **arguments: Any) -> None:
        self.events.append(("geometry", arguments))

    def watermark(self, step: int) -> None:
        self.events.append(("watermark", {"step": step}))

    def flush(self, timeout: float) -> bool:
        return True

    def register_checkpoint(self, **arguments: Any) -> None:
        self.events.append(("checkpoint", arguments))

    def close(self, timeout: float) -> None:
        self.closed = True

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.events if name == kind]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[KeptStream]:
    """Every stream opened by `attach`, oldest first."""
    opened: list[KeptStream] = []

    def open_stream(server: str, **settings: Any) -> KeptStream:
        opened.append(KeptStream({"server": server, **settings}))
        return opened[-1]

    monkeypatch.setattr(observer, "RoutingStream", open_stream)
    # At the default address somebody may answer which attempt is next.
    monkeypatch.setenv("PATHWATCH_SERVER", NOBODY)
    return opened


@pytest.fixture
def signal() -> Callable[..., signal_pb2.Signal]:
    """A signal as the service would give it."""

    def make(action: str, step: int, stop_at_step: int | None = None, **more: Any) -> signal_pb2.Signal:
        made = signal_pb2.Signal(
            run="r", step=step, action=signal_pb2.Action.Value(f"ACTION_{action}"), **more
        )
        if stop_at_step is not None:
            made.stop_at_step = stop_at_step
        return made

    return make


class TorchMoe(nn.Module):
    """Embedding, MoE layers in plain PyTorch with dropout, head: tokens [B, S] → logits [B, S, V]."""

    def __init__(self, layers: int = 2, *, width: int = 12, experts: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, width)
        self.layers = nn.ModuleList(TorchMoeLayer(width, experts) for _ in range(layers))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + self.dropout(layer(x))
        return self.head(x)


class TorchMoeLayer(nn.Module):
    """A softmax gate over experts; all of them run, weighted by the best two."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, chosen = self.gate(x).softmax(-1).topk(2)
        weights = torch.zeros(*x.shape[:-1], len(self.experts), dtype=x.dtype).scatter(
            -1, chosen, values.to(x.dtype)
        )
        return sum(expert(x) * weights[..., k : k + 1] for k, expert in enumerate(self.experts))


@pytest.fixture
def make_torch_moe() -> Callable[..., TorchMoe]:
    """Seeded."""

    def make(layers: int = 2) -> TorchMoe:
        torch.manual_seed(0)
        return TorchMoe(layers)

    return make


@pytest.fixture
def start_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[ForkedRank]]]:
    """Start a script in real processes, as torchrun would; `arguments` gives each rank's. Killed at the end.

    The script may import this file as `conftest`.
    """
    started: list[ForkedRank] = []

    def start(
        script: Path, arguments: Callable[[int], Sequence[str]], world_size: int = 2
    ) -> list[ForkedRank]:
        world = {
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports.lasting_port()),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "PATHWATCH_SERVER": NOBODY,
        }
        folder = tmp_path_factory.mktemp("ranks")
        ranks = [
            ForkedRank(
                script,
                arguments(rank),
                folders=[str(Path(__file__).parent), str(Path(ports.__file__).parent)],
                environment={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                errors=folder / f"{rank}.log",
            )
            for rank in range(world_size)
        ]
        started.extend(ranks)
        return ranks

    yield start
    for process in started:
        process.kill()
        process.communicate(60)


@pytest.fixture
def run_two_ranks(tmp_path: Path, start_ranks: Callable) -> Callable[..., list[dict[str, Any]]]:
    """Run a script in two real processes to its end; what each wrote to its first argument, as JSON."""

    def run(script: Path, *arguments: str) -> list[dict[str, Any]]:
        ranks = start_ranks(script, lambda rank: [str(tmp_path / f"{rank}.json"), *arguments])
        for process in ranks:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors[-4000:]
        return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    return run
