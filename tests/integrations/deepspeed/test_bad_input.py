"""What may go wrong around a job: training goes on, one warning says what is lost."""

from __future__ import annotations

import errno
import logging
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pathwatch.client import Client
from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.integrations.observing import checkpoint_folders

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4), labels=TOKENS)},
    interval=2,
    shift_labels=False,
)


def train(engine: Any, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = engine(TOKENS).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("pathwatch")
    ]


def eventually(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Sidecar:
    """A real server process; the same data and port when it is started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "pathwatch.server.cli", "serve", "--data", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, "--listen", self.address, "--http", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert "grpc=" in self._process.stdout.readline()

    def send(self, signal: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def sidecar(tmp_path: Path, free_port: int) -> Iterator[Sidecar]:
    """Started; killed after the test."""
    server = Sidecar(tmp_path / "data", free_port)
    server.start()
    yield server
    server.kill()


def test_a_model_without_routers_trains_unobserved(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    def dense() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))

    with pytest.raises(ValueError, match="rout"):
        attach(make_engine(dense()), run="r", probe=PROBE, strict=True)
    plain = train(make_engine(dense()), 3)
    caplog.clear()
    engine = make_engine(dense())
    with attach(engine, run="r", probe=PROBE) as watch:
        assert train(engine, 3) == plain
        assert watch.best_checkpoint() is None
    assert not streams
    (message,) = warnings(caplog)
    assert "training goes on" in message


def test_an_unreachable_sidecar_holds_nothing_up(
    make_engine: Callable, free_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    plain = train(make_engine(), 5)
    torch.manual_seed(1)
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE, server=f"127.0.0.1:{free_port}") as watch:
        assert train(engine, 5) == plain
        engine.save_checkpoint(tmp_path)
        assert not watch.should_stop()
        assert watch.best_checkpoint() is None
        eventually(lambda: warnings(caplog))  # said by the stream's thread
        (during,) = warnings(caplog)
        watch.close(timeout=0.5)
    assert "training goes on" in during
    assert str(free_port) in during
    # At the end it says what was lost; after it perhaps that links were not seen to.
    assert "not delivered" in warnings(caplog)[1]
    assert not (tmp_path / "best").exists()


@pytest.mark.slow
def test_a_sidecar_that_dies_and_comes_back_misses_nothing(
    make_engine: Callable, sidecar: Sidecar, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE, server=sidecar.address) as watch:
        train(engine, 3)
        sidecar.kill()
        train(engine, 6)
        sidecar.start()
        train(engine, 1)
        watch.close(timeout=60)
    assert sum("training goes on" in message for message in warnings(caplog)) <= 1
    with Client(sidecar.address) as client:
        eventually(lambda: client.get_run("r").closed_step >= 10)
        assert [window.step for window in client.get_metrics("r").windows] == [0, 2, 4, 6, 8, 10]


@pytest.mark.slow
def test_a_sidecar_that_hangs_holds_nothing_up(
    make_engine: Callable, sidecar: Sidecar, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped before the first reading: neither the question for the attempt nor the stream get an answer."""
    sidecar.send(signals.SIGSTOP)
    engine = make_engine()
    out = tmp_path / "out"
    with attach(engine, run="r", probe=PROBE, server=sidecar.address) as watch:
        losses = train(engine, 20)
        engine.save_checkpoint(out)
        assert not watch.should_stop()
        watch.close(timeout=1)
    assert len(losses) == 20
    # Where all this took long it was said before that nobody answers.
    assert any("not delivered" in message for message in warnings(caplog))
    assert not (out / "best").exists()


def test_a_full_disk_costs_a_link_and_one_warning(
    make_engine: Callable,
    streams: list,
    signal: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from pathwatch.integrations.observing import sidecar as asked
    from pathwatch.v1 import run_pb2

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_folders.os, "replace", full)
    monkeypatch.setattr(asked.Sidecar, "ranking", lambda *_: [run_pb2.Checkpoint(step=1, tag="global_step1")])
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, 1)
        engine.save_checkpoint(tmp_path)
        for revision in range(3):
            streams[0].signal = signal("CONTINUE", step=0, revision=revision)
            train(engine, 1)
        watch.close(60)  # links are made by another thread
    assert not watch.should_stop()
    (message,) = warnings(caplog)
    assert "arranging checkpoints, training goes on (told once): OSError: [Errno 28] No space left" in message
