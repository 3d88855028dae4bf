"""The callback under a real Trainer: what is read and when, checkpoints, the stop, resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from pathwatch.integrations.lightning import PathwatchCallback, Probe, ProbeGroup, Stream
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (24, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS[:5]}, sample_ids=torch.arange(5), labels=TOKENS[:5])},
    interval=2,
    shift_labels=False,
)


class Module(pl.LightningModule):
    """The model as a child."""

    def __init__(self, model: torch.nn.Module, *, manual: bool = False) -> None:
        super().__init__()
        self.model = model
        self.automatic_optimization = not manual
        self.losses: list[float] = []

    def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(self.logits(tokens).flatten(0, 1).float(), tokens.flatten())
        if not self.automatic_optimization:
            self.manual_backward(loss)
            self.optimizers().step()
            self.optimizers().zero_grad()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, tokens: torch.Tensor) -> None:
        self.logits(tokens)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class At(Callback):
    """Does something once a step is done, before other callbacks that come later."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.act()


@pytest.fixture
def fit(tmp_path: Path, make_torch_moe: Callable) -> Callable[..., Module]:
    """Train the model, four samples a batch, six batches an epoch."""

    def run(
        *callbacks: Callback, module: Module | None = None, ckpt_path: str | None = None, **settings: Any
    ) -> Module:
        module = module or Module(make_torch_moe())
        torch.manual_seed(3)
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_steps": 6, "logger": False, "enable_checkpointing": False, **settings},
        )
        loader = DataLoader(TOKENS, batch_size=4)
        trainer.fit(module, loader, loader, ckpt_path=ckpt_path)
        return module

    return run


def read_at(stream: Any) -> list[int]:
    return [event["step"] for event in stream.of("watermark")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_is_bit_identical_with_and_without(fit: Callable, streams: list, precision: str) -> None:
    """The sanity check and validation run in between, and are not observed."""
    plain = fit(precision=precision, val_check_interval=3)
    watched = fit(PathwatchCallback(run="r", probe=PROBE), precision=precision, val_check_interval=3)
    assert watched.losses == plain.losses
    for own, other in zip(watched.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own, other)
    assert read_at(streams[0]) == [0, 2, 4, 6]
    assert [len(event["sample_ids"]) for event in streams[0].of("observe")] == [5] * 4
    assert streams[0].closed


def test_the_probe_runs_in_the_precision_of_training(fit: Callable, streams: list) -> None:
    for precision in ("32-true", "bf16-mixed"):
        fit(PathwatchCallback(run="r", probe=PROBE), precision=precision, max_steps=1)
    full, half = (stream.of("observe")[0]["losses"] for stream in streams)
    assert (full != half).any()
    np.testing.assert_allclose(full, half, rtol=0.05)


@pytest.mark.parametrize(
    ("manual", "settings", "steps"),
    [
        (False, {"accumulate_grad_batches": 3, "max_epochs": 2, "max_steps": -1}, [0, 2, 4]),
        (True, {"max_steps": 4}, [0, 2, 4]),
    ],
)
def test_steps_are_the_optimizers(
    fit: Callable,
    make_torch_moe: Callable,
    streams: list,
    manual: bool,
    settings: dict[str, Any],
    steps: list[int],
) -> None:
    fit(PathwatchCallback(run="r", probe=PROBE), module=Module(make_torch_moe(), manual=manual), **settings)
    assert read_at(streams[0]) == steps


def test_a_checkpoint_asked_for_is_saved_where_checkpoints_are(
    fit: Callable, streams: list, signal: Callable, tmp_path: Path
) -> None:
    def ask() -> None:
        streams[0].signal = signal("CHECKPOINT", step=0)

    own = ModelCheckpoint(dirpath=tmp_path / "own", every_n_train_steps=4, save_top_k=-1)
    callback = PathwatchCallback(run="r", probe=PROBE, check_interval=1)
    fit(At(1, ask), callback, own, enable_checkpointing=True)
    saved = {event["step"]: Path(event["tag"]) for event in streams[0].of("checkpoint")}
    asked = tmp_path / "own" / "pathwatch-step=2.ckpt"
    assert saved[2] == asked
    assert saved[4].parent == tmp_path / "own"
    assert all(path.exists() for path in saved.values())
    assert set(saved) == {2, 4}


def test_training_stops_at_the_agreed_step(
    fit: Callable, streams: list, signal: Callable, tmp_path: Path
) -> None:
    def stop() -> None:
        streams[0].signal = signal("STOP", step=0, stop_at_step=4)

    module = fit(At(1, stop), PathwatchCallback(run="r", probe=PROBE, check_interval=1))
    assert module.trainer.global_step == 4
    assert (tmp_path / "checkpoints" / "pathwatch-step=4.ckpt").exists()
    # A Trainer that has to do more steps does them, with one last checkpoint.
    elsewhere = PathwatchCallback(run="r", probe=PROBE, check_interval=1, dirpath=tmp_path / "elsewhere")
    streams.clear()
    module = fit(At(1, stop), elsewhere, min_steps=6)
    assert module.trainer.global_step == 6
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["pathwatch-step=4.ckpt"]


def test_a_resumed_job_is_the_next_attempt(fit: Callable, streams: list, tmp_path: Path) -> None:
    own = ModelCheckpoint(dirpath=tmp_path / "own", every_n_train_steps=2, save_top_k=-1)
    fit(PathwatchCallback(run="r", probe=PROBE), own, max_steps=4, enable_checkpointing=True)
    (path,) = (tmp_path / "own").glob("*step=2.ckpt")
    fit(PathwatchCallback(run="r", probe=PROBE), ckpt_path=str(path))
    first, second = streams
    assert (first.settings["attempt"], second.settings["attempt"]) == (0, 1)
    assert (read_at(first), read_at(second)) == ([0, 2, 4], [2, 4, 6])


def test_what_the_service_says_is_logged(
    fit: Callable, streams: list, signal: Callable, tmp_path: Path
) -> None:
    status = signal_pb2.GroupStatus(
        group="a/b", phase=signal_pb2.PHASE_LEARNING, evidence={"path_distance": 7.5}
    )

    def say() -> None:
        streams[0].signal = signal("CONTINUE", step=0, groups=[status])

    logger = CSVLogger(tmp_path, name="log", version="")
    fit(At(3, say), PathwatchCallback(run="r", probe=PROBE), logger=logger)
    lines = [line.split(",") for line in (tmp_path / "log" / "metrics.csv").read_text().splitlines()]
    (row,) = (dict(zip(lines[0], line, strict=True)) for line in lines[1:])
    assert row["step"] == "3"
    assert float(row["Pathwatch/a_b/path_distance"]) == 7.5
    assert float(row["Pathwatch/a_b/phase"]) == signal_pb2.PHASE_LEARNING


class Spread(Module):
    """Parts of the model as children, its forward in the LightningModule."""

    def __init__(self, model: Any) -> None:
        super().__init__(torch.nn.Identity())
        self.embedding, self.layers, self.head = model.embedding, model.layers, model.head

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self(tokens)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


class Nested(Module):
    """The model deep inside, beside a part of its own."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.scale = torch.nn.Linear(1, 1)


def test_the_model_within_is_found(
    fit: Callable, make_torch_moe: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (Module(make_torch_moe()), Spread(make_torch_moe())):
        fit(PathwatchCallback(run="r", probe=PROBE), module=module, max_steps=1)
    with_dropout, without = (stream.of("observe")[0]["losses"] for stream in streams)
    np.testing.assert_allclose(with_dropout, without, rtol=1e-5)
    nested = Nested(make_torch_moe())
    fit(PathwatchCallback(run="r", probe=PROBE), module=nested, max_steps=1)
    assert "Nested has no forward, and no child that holds all its parameters" in caplog.text
    with pytest.raises(ValueError, match="Nested has no forward"):
        fit(PathwatchCallback(run="r", probe=PROBE, strict=True), module=nested, max_steps=1)
    with pytest.raises(ValueError, match="model='modell': Nested has no part of that name"):
        fit(PathwatchCallback(run="r", probe=PROBE, strict=True, model="modell"), module=nested, max_steps=1)
    assert len(streams) == 2
    fit(PathwatchCallback(run="r", probe=PROBE, model="model"), module=nested, max_steps=1)
    assert read_at(streams[2]) == [0]


def test_stream_mode_observes_training_alone(fit: Callable, make_torch_moe: Callable, streams: list) -> None:
    callback = PathwatchCallback(run="r", stream=Stream(window_steps=2, interval=1, shift_labels=False))

    class Described(Module):
        def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
            first = 4 * len(self.losses)
            callback.watch.batch(groups="a", sample_ids=range(first, first + 4), shape=(4, 6), labels=tokens)
            return super().training_step(tokens)

    module = Described(make_torch_moe())
    fit(callback, module=module, max_steps=3, val_check_interval=1)
    observed = streams[0].of("observe")
    assert [(event["step"], event["sample_ids"].tolist()) for event in observed] == [
        (step, list(range(4 * step, 4 * step + 4))) for step in range(3)
    ]
    np.testing.assert_allclose([event["losses"].mean() for event in observed], module.losses, rtol=1e-5)
