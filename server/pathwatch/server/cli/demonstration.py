"""One real run on one machine: sidecar, DeepSpeed job, live table."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from pathwatch.client import Client
from pathwatch.server.cli.following import Update, follow
from pathwatch.server.cli.livetable import show
from pathwatch.server.cli.outcome import judge
from pathwatch.server.cli.processes import deepspeed_job, sidecar
from pathwatch.server.config import ServerConfig
from pathwatch.server.report.data import NothingToReportError, RunHistory, run_history
from pathwatch.server.report.labels import LabelsError, load_labels
from pathwatch.v1 import run_pb2

RUN = "arithmetic"
RUN_PATH = f"#/runs/{RUN}"
"""Of the run on the status page."""
BEGINS_WITHIN_SECONDS = 120.0
"""How long the job may take to make itself known."""
JOB = Path("examples/arithmetic/train.py")


class DemoError(RuntimeError):
    """The demo could not be carried out; the message is one line."""


def demonstrate(out: Path, console: Console, *, workers: int, seed: int, steps: int | None) -> bool:
    """Runs the demo into `out`; True when a group was said to generalize and a checkpoint chosen."""
    script = job_script()
    _clear(out)
    with sidecar(out / "data", out / "server.log") as server:
        page = f"http://{server.http}/"
        _say(console, f"sidecar: gRPC {server.grpc}, status page {page}, Prometheus {page}metrics")
        arguments = ["--server", server.grpc, "--run", RUN, "--out", str(out), "--seed", str(seed)]
        if steps is not None:
            arguments += ["--steps", str(steps)]
        with (
            deepspeed_job(script, arguments, workers=workers, log=out / "train.log") as job,
            Client(server.grpc) as client,
        ):
            _say(console, f"training: {workers} workers, log in {out / 'train.log'}")
            _await_run(client, job, out)
            _say(console, f"the run, while it trains: {page}{RUN_PATH}")
            show(_until_job_ends(client, job), console)
            if job.wait() != 0:
                raise DemoError(
                    f"the training job failed (exit code {job.returncode}); see {out / 'train.log'}"
                )
            history = _history(client)
    try:
        labels = load_labels(out / "labels.npz")
    except LabelsError as error:
        raise DemoError(f"the training job left no labels to judge by: {error}") from None
    judged = judge(out, console, history, labels, seed=seed)
    _say(console, _how_to_look_again(out / "data"))
    return judged


def job_script() -> Path:
    """In the working folder or in the clone this package was installed from."""
    for root in (Path.cwd(), *Path(__file__).resolve().parents):
        if (root / JOB).is_file():
            return root / JOB
    raise DemoError(f"{JOB} was not found; run the demo in a clone of the pathwatch repository")


def _say(console: Console, line: str) -> None:
    """Addresses are not broken over lines: they are there to be clicked and copied."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _how_to_look_again(data: Path) -> str:
    program = sys.argv[0] if Path(sys.argv[0]).name == "pathwatch" else "pathwatch"
    command = shlex.join([program, "serve", "--data", str(data)])
    return f"the run again: {command}, then http://{ServerConfig(data=data).http}/{RUN_PATH}"


def _clear(out: Path) -> None:
    """Removes what an earlier demo left, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in ("data", "checkpoints"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for name in ("labels.npz", "report.html", "report.png", "summary.json", "server.log", "train.log"):
        (out / name).unlink(missing_ok=True)


def _await_run(client: Client, job: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + BEGINS_WITHIN_SECONDS
    while not any(run.name == RUN for run in client.list_runs()):
        if job.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"the training job did not reach the sidecar; see {out / 'train.log'}")
        time.sleep(0.2)


def _until_job_ends(client: Client, job: subprocess.Popen[bytes]) -> Iterator[Update]:
    for update in follow(client, RUN):
        yield update
        if job.poll() is not None and update.run.state == run_pb2.RUN_STATE_ACTIVE:
            client.finish_run(RUN)


def _history(client: Client) -> RunHistory:
    try:
        return run_history(client.get_run(RUN), client.get_metrics(RUN))
    except NothingToReportError as error:
        raise DemoError(str(error)) from None
