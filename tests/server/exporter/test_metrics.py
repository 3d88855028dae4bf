"""What Prometheus scrapes, from a server that is fed."""

from __future__ import annotations

import ast
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.phases.verdict import Phase
from pathwatch.v1 import run_pb2

SERVER = Path(__file__).parents[3] / "server"

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=3, experts=4), per_layer=True)

PUBLISHED = [
    "path_distance",
    "path_distance_normalized",
    "path_distance_stderr",
    "path_distance_ratio",
    "path_consistency",
    "path_smoothness",
    "effective_dimension",
    "target_affinity",
    "routing_entropy",
    "expert_load_max_ratio",
    "train_loss",
    "unseen_loss",
    "loss_gap",
    "memorized_ratio",
    "window_samples",
    "group_phase",
    "run_step",
    "run_stop_at_step",
    "best_checkpoint_step",
    "phase_changes_total",
    "ingest_observations_total",
    "ingest_bytes_total",
    "window_close_seconds",
    "state_age_seconds",
]
"""Names of the contract, without the prefix."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A server with one run of two groups, five windows each, and an empty run."""
    config = ServerConfig(data=tmp_path_factory.mktemp("exporter"))
    with BackgroundServer(config) as server, Client(server.grpc_address) as client:
        client.create_run("run", CONFIG)
        client.create_run("empty", CONFIG)
        stream = RoutingStream(server.grpc_address, run="run")
        rng = np.random.default_rng(0)
        for step in range(0, 50, 10):
            rows = rng.normal(size=(3, 4, 8)).astype(np.float32)
            stream.geometry(
                step=step,
                gram_self=rows @ rows.swapaxes(1, 2),
                gram_next=rows[:-1] @ rows[1:].swapaxes(1, 2),
            )
            for group in ("code", "math"):
                stream.observe(
                    step=step,
                    group=group,
                    sample_ids=np.arange(40),
                    weights=rng.dirichlet(np.ones(4), size=(40, 3)).astype(np.float32),
                    losses=rng.uniform(0.1, 0.3, 40).astype(np.float32),
                    targets=rng.integers(0, 4, 40, dtype=np.int32),
                    visits=(np.arange(40, dtype=np.int32) % 2),
                )
            client.register_checkpoint("run", step=step)
            stream.watermark(step)
        assert stream.flush(60)
        stream.close()
        client.finish_run("run")
        yield server


def scrape(server: BackgroundServer) -> str:
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=30) as response:
        text: str = response.read().decode()
    return text


def samples(text: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_promtool_finds_nothing_to_complain_about(server: BackgroundServer) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(server), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_name_of_the_contract_is_published_with_unit_and_direction(server: BackgroundServer) -> None:
    families = {family.name: family for family in text_string_to_metric_families(scrape(server))}
    for name in PUBLISHED:
        family = families["pathwatch_" + name.removesuffix("_total")]
        assert family.documentation, name
    assert "lower = more shared" in families["pathwatch_path_distance"].documentation


def test_values_are_those_of_the_newest_window(server: BackgroundServer) -> None:
    found = samples(scrape(server))
    with Client(server.grpc_address) as client:
        window = client.get_metrics("run", group="math", after_step=30).windows[0]
        signal = client.get_signal("run")
    published = {
        name.removeprefix("pathwatch_"): sample.value
        for name, of_name in found.items()
        for sample in of_name
        if sample.labels == {"run": "run", "group": "math"}
    }
    for name, value in window.metrics.items():
        assert published[name] == value, name
    assert "path_smoothness" in window.metrics
    layers = {
        sample.labels["layer"]: sample.value
        for sample in found["pathwatch_layer_path_distance"]
        if sample.labels["group"] == "math"
    }
    assert [layers[str(layer)] for layer in range(3)] == list(window.layer_path_distance)
    (step,) = (s.value for s in found["pathwatch_run_step"] if s.labels["run"] == "run")
    assert step == 40
    best = {s.labels["group"]: s.value for s in found["pathwatch_best_checkpoint_step"]}
    assert best[""] == signal.best_checkpoint_step
    assert best["math"] == signal.groups[1].best_checkpoint_step


def test_the_phase_is_a_state_set(server: BackgroundServer) -> None:
    found = samples(scrape(server))
    with Client(server.grpc_address) as client:
        phases = {status.group: status.phase for status in client.get_signal("run").groups}
    for group, phase in phases.items():
        states = {
            s.labels["phase"]: s.value for s in found["pathwatch_group_phase"] if s.labels["group"] == group
        }
        assert len(states) == 7
        assert sum(states.values()) == 1
        (current,) = (name for name, value in states.items() if value)
        assert f"PHASE_{current}" == signal_phase_name(phase)


def signal_phase_name(phase: Any) -> str:
    from pathwatch.v1 import signal_pb2

    return signal_pb2.Phase.Name(phase)


def test_labels_are_few(server: BackgroundServer) -> None:
    allowed = {
        "run",
        "group",
        "layer",
        "phase",
        "action",
        "result",
        "le",
        "listener",
        "reason",
        "file",
        "limit",
    }
    allowed |= {"mode", "layers", "experts", "policy"}  # of pathwatch_run_info, one series per run
    for name, of_name in samples(scrape(server)).items():
        if name.startswith("pathwatch_"):
            assert all(set(sample.labels) <= allowed for sample in of_name), name


def test_ingest_is_counted(server: BackgroundServer) -> None:
    found = samples(scrape(server))
    counts = {s.labels["result"]: s.value for s in found["pathwatch_ingest_observations_total"]}
    assert counts == {"accepted": 400, "late": 0, "beyond": 0, "duplicate": 0, "rejected": 0, "dropped": 0}
    assert found["pathwatch_ingest_bytes_total"][0].value > 400 * 3 * 4 * 4
    assert found["pathwatch_window_close_seconds_count"][0].value == 5
    buckets = [s.value for s in found["pathwatch_window_close_seconds_bucket"]]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 5


@pytest.mark.slow
def test_every_limit_that_refuses_is_counted_from_0_on(tmp_path: Path) -> None:
    """A counter that appears with its first refusals does not increase with them."""
    named = {
        call.args[0].value
        for path in SERVER.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in {"LimitError", "OverloadError"}
        and isinstance(call.args[0], ast.Constant)
    }
    assert {"runs", "streams_per_run", "waiting_bytes"} <= named
    with BackgroundServer(ServerConfig(data=tmp_path)) as idle:
        counted = {
            sample.labels["limit"]: sample.value
            for sample in samples(scrape(idle))["pathwatch_limit_refusals_total"]
        }
    assert named | {"streams", "watchers", "calls", "layers", "experts"} <= counted.keys()
    assert set(counted.values()) == {0}


def test_an_empty_run_has_no_series_of_groups(server: BackgroundServer) -> None:
    found = samples(scrape(server))
    of_run = [s for of_name in found.values() for s in of_name if s.labels.get("run") == "empty"]
    assert not any("group" in s.labels for s in of_run)
    values = {s.name: s.value for s in of_run}
    assert (values["pathwatch_run_step"], values["pathwatch_run_closed_step"]) == (-1, -1)
    assert "pathwatch_run_stop_at_step" not in values


def test_a_deleted_runs_series_vanish(tmp_path: Path) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server, Client(server.grpc_address) as client:
        client.create_run("run", CONFIG)
        assert 'run="run"' in scrape(server)
        client.delete_run("run")
        assert 'run="run"' not in scrape(server)


def test_how_long_a_finished_run_stays_can_be_set(tmp_path: Path) -> None:
    config = ServerConfig(data=tmp_path, finished_series_seconds=0)
    with BackgroundServer(config) as server, Client(server.grpc_address) as client:
        client.create_run("run", CONFIG)
        assert 'run="run"' in scrape(server)
        client.finish_run("run")
        assert 'run="run"' not in scrape(server)


@pytest.mark.slow
def test_a_silent_runs_groups_are_unknown(tmp_path: Path, eventually: Any) -> None:
    config = run_pb2.RunConfig(
        topology=CONFIG.topology,
        grace_seconds=0.2,
        # Of examples/plugin: says LEARNING at the first window.
        detector="loss-threshold",
    )
    with BackgroundServer(ServerConfig(data=tmp_path)) as server, Client(server.grpc_address) as client:
        client.create_run("run", config)
        stream = RoutingStream(server.grpc_address, run="run")
        weights_NLK = np.full((40, 3, 4), 0.25, np.float32)
        stream.observe(
            step=1, group="math", sample_ids=np.arange(40), weights=weights_NLK, losses=np.ones(40)
        )
        stream.watermark(1)
        eventually(lambda: [w for w in client.get_metrics("run").windows if w.phase == Phase.LEARNING])
        eventually(
            lambda: [
                s
                for s in samples(scrape(server))["pathwatch_group_phase"]
                if s.labels["phase"] == "UNKNOWN" and s.value == 1
            ]
        )
        stream.close()


def test_the_process_is_watched_too(server: BackgroundServer) -> None:
    assert "process_resident_memory_bytes" in samples(scrape(server))


def test_health_and_unknown_paths(server: BackgroundServer) -> None:
    with urllib.request.urlopen(f"http://{server.http_address}/healthz", timeout=30) as response:
        assert response.read() == b"ok\n"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://{server.http_address}/nothing", timeout=30)
    assert error.value.code == 404
