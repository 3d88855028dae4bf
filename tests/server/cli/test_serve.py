"""`serve` as a process: ready, asked, and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "pathwatch.server.cli"]


@pytest.mark.slow
def test_it_says_where_it_is_and_drains_when_told(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        ready = re.fullmatch(r"grpc=(127\.0\.0\.1:\d+) http=(127\.0\.0\.1:\d+)\n", first)
        assert ready is not None, first
        asked = subprocess.run(
            [*COMMAND, "runs", "--json", "--server", ready[1]], capture_output=True, text=True, timeout=60
        )
        assert (asked.returncode, asked.stdout) == (0, "")
        with urllib.request.urlopen(f"http://{ready[2]}/metrics", timeout=60) as page:
            assert b"pathwatch_" in page.read()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert rest == ""
    assert f"status page: http://{ready[2]}/" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_replay_through_it_from_another_process(tmp_path: Path) -> None:
    """The script as a user starts it, without a terminal: JSON lines alone on stdout, nothing on stderr."""
    trace = Path(__file__).parents[2] / "data" / "traces" / "text_c_s0.npz"
    done = subprocess.run(
        [*COMMAND, "replay", trace, "--json"], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "summary"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_linear_algebra_runs_in_the_threads_of_the_pool_alone(tmp_path: Path) -> None:
    """Threads of OpenBLAS's own wait for each other on a machine that others use, too."""
    program = f"""
import asyncio, json
import threadpoolctl
from pathwatch.server.cli.serve import command as serve

def instead(served):
    served.close()
    import numpy.linalg
    print(json.dumps([pool["num_threads"] for pool in threadpoolctl.threadpool_info()]))
    return 0

asyncio.run = instead
serve(["--data", {str(tmp_path / "data")!r}, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    threads = json.loads(done.stdout)
    assert threads
    assert set(threads) == {1}
