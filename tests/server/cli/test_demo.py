"""`demo`, with a job that plays back a recorded run in place of training.

Sidecar, launcher, judgement and cleaning up are real.

The job itself, which trains for minutes, is `make demo`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from pathwatch.server.report.labels import load_labels

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "data" / "traces"
LINK = re.compile(r"^the run, while it trains: (http://127\.0\.0\.1:\d+/)#/runs/arithmetic\n", re.MULTILINE)
JOB = """
import argparse, os, shutil, sys, time
from pathlib import Path
from pathwatch.server.cli.playback import replay
from pathwatch.server.traces import load_trace

parser = argparse.ArgumentParser()
for name in ("--server", "--run", "--out", "--seed", "--steps", "--local_rank"):
    parser.add_argument(name)
args = parser.parse_args()
if os.environ["RANK"] == "0":
    print("world size", os.environ["WORLD_SIZE"], "seed", args.seed)
    for judged in replay(load_trace({trace!r}), address=args.server, run=args.run):
        {each_step}
    shutil.copy({labels!r}, Path(args.out) / "labels.npz")
"""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the demo in a folder whose job plays back a trace."""
    started: list[subprocess.Popen[str]] = []

    def start(trace: str, each_step: str = "pass", *options: str) -> subprocess.Popen[str]:
        script = tmp_path / "examples" / "arithmetic" / "train.py"
        script.parent.mkdir(parents=True)
        script.write_text(
            JOB.format(
                trace=str(DATA / f"{trace}.npz"),
                labels=str(DATA / "labels" / f"{trace}.labels.npz"),
                each_step=each_step,
            )
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "pathwatch.server.cli", "demo", "--out", "out", *options],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Shells have what they run in the background ignore Ctrl-C, these tests included.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:  # the test failed, and its job may wait for ever
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                for left in (*psutil.Process(process.pid).children(recursive=True), process):
                    left.kill()


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_judged_run(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    seen = tmp_path / "seen"  # the page, which is there as long as the job runs
    wait = f"while not Path({str(seen)!r}).exists(): time.sleep(0.05)"
    process = demo("ol_pair_s0", wait, "--seed", "5")
    assert process.stdout is not None
    out = ""
    while (link := LINK.search(out)) is None:
        line = process.stdout.readline()
        assert line, "the demo ended early"
        out += line
    assert f"status page {link[1]}, Prometheus {link[1]}metrics\n" in out
    with urllib.request.urlopen(link[1], timeout=30) as page:  # noqa: S310 (http, see LINK)
        assert page.status == 200
    seen.touch()
    rest, err = process.communicate(timeout=240)
    out += rest
    assert process.returncode == 0, out + err
    assert (
        "the run again: pathwatch serve --data out/data, then http://127.0.0.1:9464/#/runs/arithmetic\n"
        in out
    )
    assert "world size 2 seed 5" in (tmp_path / "out" / "train.log").read_text()
    assert left_over(tmp_path) == []

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["judged"] is True
    labels = load_labels(DATA / "labels" / "ol_pair_s0.labels.npz")
    for group, said in summary["groups"].items():
        smoothed_T = labels.smoothed(group)
        assert smoothed_T is not None
        accuracy = said["test_accuracy"]
        at = labels.steps_T.tolist().index(said["chosen_checkpoint"])
        assert accuracy["chosen"] == {
            "step": said["chosen_checkpoint"],
            "score": pytest.approx(smoothed_T[at], abs=1e-4),
        }
        assert accuracy["best"]["score"] == pytest.approx(np.max(smoothed_T), abs=1e-4)
        assert accuracy["last"]["step"] == 2750
        assert [change["phase"] for change in said["phase_history"]].count("GENERALIZING") >= 1
        line = next(line for line in out.splitlines() if line.startswith(f"{group}: "))
        assert f"chosen {accuracy['chosen']['score']:.3f} (step {said['chosen_checkpoint']})" in line
        assert all(rule in line for rule in ("best", "last", "loss patience"))
    assert "test accuracy" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "report.png").stat().st_size > 50_000


def test_a_run_in_which_nothing_generalizes(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    out, err = (process := demo("text_c_s0")).communicate(timeout=240)
    assert process.returncode == 1, out + err
    assert err == "the run was not judged: no group was said to generalize with a checkpoint chosen\n"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["judged"] is False


def test_a_job_that_fails(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = demo("ol_pair_s0", "sys.exit('out of memory') if judged.step > 200 else None")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "the training job failed" in err
    assert "out/train.log" in err
    assert "out of memory" in (tmp_path / "out" / "train.log").read_text()
    assert left_over(tmp_path) == []


def test_ctrl_c_ends_everything(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = demo("ol_pair_s0", "time.sleep(3600) if judged.step > 200 else None")
    assert process.stdout is not None
    while "LEARNING" not in (line := process.stdout.readline()):
        assert line, "the demo ended early"
    assert len(left_over(tmp_path)) > 3
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    deadline = time.monotonic() + 60
    while left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(tmp_path) == []


def test_outside_a_clone_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathwatch.server.cli import demonstration

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "__file__", str(tmp_path / "site-packages" / "demonstration.py"))
    with pytest.raises(demonstration.DemoError, match="run the demo in a clone"):
        demonstration.job_script()
