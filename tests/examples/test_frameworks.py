"""The jobs of examples/frameworks against a real server, as their docstrings say to start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import patient_job
import pytest

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import signal_pb2

FRAMEWORKS = Path(__file__).parents[2] / "examples" / "frameworks"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a real server."""
    with BackgroundServer(ServerConfig(data=tmp_path / "data")) as running:
        yield running.grpc_address


@pytest.fixture
def train(server: str, tmp_path: Path) -> Callable[..., str]:
    """Run a script to some step, with a reading every ten; what it printed last."""

    def run(script: str, *arguments: str, steps: int, launcher: tuple[str, ...] = ()) -> str:
        done = subprocess.run(
            [
                *(sys.executable, *launcher, patient_job.__file__, str(FRAMEWORKS / script)),
                *("--run-name", "example", "--server", server, "--out", str(tmp_path / "out")),
                *("--steps", str(steps), "--probe-interval", "10", *arguments),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]

    return run


def windows_up_to(client: Client, step: int, group: str = "") -> Sequence[signal_pb2.Window]:
    """Windows of the run, once that step is judged: acknowledged is sooner."""
    deadline = time.monotonic() + 60
    while client.get_run("example").closed_step < step:
        assert time.monotonic() < deadline, f"step {step} was not judged"
        time.sleep(0.05)
    return client.get_metrics("example", group=group).windows


@pytest.mark.slow
@pytest.mark.parametrize(("script", "suffix"), [("train_ddp.py", ".pt"), ("train_fsdp2.py", "")])
def test_two_processes_train_stop_and_go_on(
    train: Callable[..., str], server: str, tmp_path: Path, script: str, suffix: str
) -> None:
    end = train(script, steps=20, launcher=TORCHRUN)
    assert end.startswith("ended at step 20, loss ")
    assert end.endswith(f"best checkpoint: step20{suffix}")
    resume = str(tmp_path / "out" / f"step20{suffix}")
    assert train(script, "--resume", resume, steps=30, launcher=TORCHRUN).startswith("ended at step 30, ")
    with Client(server) as client:
        windows = windows_up_to(client, 30)
        checkpoints = {ranked.checkpoint.step for ranked in client.rank_checkpoints("example")}
    assert checkpoints == {20, 30}
    # The second job is the next attempt; what it read again supersedes what the first had read.
    assert {(w.group, w.step) for w in windows} == {
        (group, step) for group in ("sorting", "noise") for step in (0, 10, 20, 30)
    }
    assert {w.attempt for w in windows} == {0, 1}
    for window in windows:
        assert not window.partial
        assert window.metrics["window_samples"] == 128, "two ranks' samples"
    losses = [w.metrics["train_loss"] for w in windows if w.group == "sorting"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_lightning(train: Callable[..., str], server: str, tmp_path: Path) -> None:
    end = train("train_lightning.py", steps=110)
    path = Path(end.partition("best checkpoint: ")[2])
    assert path.parent == tmp_path / "out"
    assert path.exists()
    with Client(server) as client:
        windows = windows_up_to(client, 110, "sorting")
        checkpoints = {ranked.checkpoint.step for ranked in client.rank_checkpoints("example")}
    assert checkpoints == {100}
    assert [window.step for window in windows] == list(range(0, 111, 10))
    assert windows[-1].metrics["train_loss"] < 0.5 * windows[0].metrics["train_loss"]


@pytest.mark.slow
def test_transformers(train: Callable[..., str], server: str, tmp_path: Path) -> None:
    end = train("train_transformers.py", steps=20)
    assert end == "ended at step 20, best checkpoint: checkpoint-20"
    resume = str(tmp_path / "out" / "checkpoint-20")
    assert train("train_transformers.py", "--resume", resume, steps=40).startswith("ended at step 40, best ")
    with Client(server) as client:
        windows = windows_up_to(client, 40)
        checkpoints = {ranked.checkpoint.step for ranked in client.rank_checkpoints("example")}
    assert checkpoints == {20, 40}
    assert {(w.group, w.step) for w in windows} == {
        (group, step) for group in ("sorting", "noise") for step in (0, 10, 20, 30, 40)
    }
    assert {w.attempt for w in windows} == {0, 1}
    for window in windows:
        assert window.metrics["window_samples"] == 128
    # What was read again right after resuming is what had been read when saving.
    losses = [w.metrics["train_loss"] for w in windows if w.group == "sorting"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
