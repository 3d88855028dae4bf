"""`export`: what a server kept of a run is a trace again, and RUN serves wherever TRACE does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from pathwatch.client import Client, RoutingStream
from pathwatch.server.traces import load_trace
from pathwatch.v1 import run_pb2

ARRAYS = (
    "steps_T",
    "losses_TGN",
    "weights_TGNLK",
    "target_weights_TGNLK",
    "targets_GN",
    "visits_TGN",
    "gram_self_TLKK",
    "gram_next_TLKK",
)


@pytest.fixture
def kept(command: Callable[..., Result], trace_file: Callable[..., Path], server: Any) -> Callable[..., Path]:
    """Replays a small trace as a run that keeps its observations; returns the trace."""

    def play(run: str, **changes: Any) -> Path:
        path = trace_file(run, **changes)
        done = command(
            *["replay", path, "--server", server.grpc_address, "--run", run, "--keep-observations", "--json"]
        )
        assert done.exit_code == 0, done.output
        return path

    return play


def rough_weights(dtype: type[np.floating]) -> dict[str, Any]:
    """Weights in a precision; losses that are missing here and there; target weights."""
    random = np.random.default_rng(3)
    weights = random.dirichlet(np.ones(4), (6, 2, 24, 2)).astype(dtype)
    losses = random.gamma(2, 1, (6, 2, 24)).astype(np.float32)
    losses[random.random(losses.shape) < 0.1] = np.nan
    return {"weights": weights, "losses": losses, "target_weights": weights[..., ::-1].copy()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_replayed_trace_comes_back(
    command: Callable[..., Result], kept: Callable[..., Path], server: Any, tmp_path: Path, dtype: Any
) -> None:
    run = f"back-{np.dtype(dtype).name}"
    source = kept(run, **rough_weights(dtype))
    out = tmp_path / "exported.npz"
    done = command("export", run, "--out", out, "--server", server.grpc_address)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{out}\n", "")
    before, after = load_trace(source), load_trace(out)
    assert after.groups == before.groups
    assert after.meta == {"run": run, "sample_ids": {group: list(range(24)) for group in before.groups}}
    for name in ARRAYS:
        mine, theirs = getattr(after, name), getattr(before, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.slow
def test_the_export_is_judged_as_the_run_was(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    source, out = trace_file("judged"), tmp_path / "judged-again.npz"
    live = command(
        *[
            "replay",
            source,
            "--run",
            "judged",
            "--server",
            server.grpc_address,
            "--keep-observations",
            "--json",
        ]
    )
    command("export", "judged", "--out", out, "--server", server.grpc_address)
    again = command("replay", out, "--run", "judged", "--json")
    assert again.exit_code == 0
    assert again.stdout == live.stdout
    assert json.loads(live.stdout.splitlines()[-1])["type"] == "summary"


def test_part_of_a_run(
    command: Callable[..., Result], kept: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    source, out = kept("part"), tmp_path / "part-of-it.npz"
    arguments = ["--group", "math", "--after-step", 50, "--server", server.grpc_address]
    assert command("export", "part", "--out", out, *arguments).exit_code == 0
    trace = load_trace(out)
    assert (trace.groups, trace.steps_T.tolist()) == (("math",), [75, 100, 125])
    np.testing.assert_array_equal(trace.weights_TGNLK[:, 0], load_trace(source).weights_TGNLK[3:, 1])


def test_what_is_left_out_is_said(command: Callable[..., Result], server: Any, tmp_path: Path) -> None:
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), keep_observations=True)
    with Client(server.grpc_address) as client:
        stream = RoutingStream(server.grpc_address, run="uneven", config=config)
        for step, groups in ((1, {"code": 6}), (2, {"code": 6, "math": 5}), (3, {"code": 5, "math": 4})):
            for group, n in groups.items():
                weights = np.full((n, 2, 4), 0.25, np.float32)
                stream.observe(step=step, group=group, sample_ids=np.arange(n), weights=weights)
            stream.watermark(step)
        assert stream.flush(60)
        stream.close()
        client.finish_run("uneven")
    out = tmp_path / "uneven.npz"
    done = command("export", "uneven", "--out", out, "--server", server.grpc_address)
    assert done.exit_code == 0
    trace = load_trace(out)
    assert (trace.steps_T.tolist(), trace.samples) == ([2, 3], 4)
    assert done.stderr.splitlines() == [
        "pathwatch: group 'math' has no window at 1 of 3 steps, which are left out",
        "pathwatch: 1 of 6 samples of group 'code' are not in every window: left out",
        "pathwatch: 1 of 5 samples of group 'math' are not in every window: left out",
        "pathwatch: 1 of 5 samples of group 'code' are left out: a trace has as many of every group, "
        "and 'math' has 4",
    ]


def test_a_run_serves_where_a_trace_does(
    command: Callable[..., Result], kept: Callable[..., Path], server: Any
) -> None:
    source = kept("either")
    of_trace = command("bound", source, "--json")
    of_run = command("bound", "either", "--json", "--server", server.grpc_address)
    assert of_run.exit_code == 0, of_run.output
    assert of_run.stdout == of_trace.stdout


def test_mistakes_are_one_line(
    command: Callable[..., Result],
    kept: Callable[..., Path],
    trace_file: Callable[..., Path],
    server: Any,
    tmp_path: Path,
) -> None:
    kept("good")
    with Client(server.grpc_address) as client:
        shape = run_pb2.Topology(layers=2, experts=4)
        stream = run_pb2.OBSERVATION_MODE_STREAM
        client.create_run("forgetful", run_pb2.RunConfig(topology=shape))
        client.create_run("new", run_pb2.RunConfig(topology=shape, keep_observations=True))
        client.create_run("streamed", run_pb2.RunConfig(topology=shape, mode=stream, window_steps=10))
    out = tmp_path / "out.npz"
    wrong = {
        "there is no run 'nobody'": ["export", "nobody", "--out", out],
        "attach(..., keep_observations=True)": ["export", "forgetful", "--out", out],
        "no round was kept": ["export", "new", "--out", out],
        "stream mode": ["export", "streamed", "--out", out],
        "no group physics; it has code, math": ["export", "good", "--out", out, "--group", "physics"],
        "ends in .npz": ["export", "good", "--out", tmp_path / "out.zip"],
        "No such file": ["export", "good", "--out", tmp_path / "nowhere" / "out.npz"],
        "neither a trace (FILE.npz) nor the name of a run": ["bound", "runs/good"],
    }
    for says, arguments in wrong.items():
        done = command(*arguments, "--server", server.grpc_address)
        assert done.exit_code == 2, arguments
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    assert not out.exists()
    alone = command("replay", trace_file("alone"), "--keep-observations")
    assert alone.exit_code == 2
    assert "needs --server" in alone.stderr
