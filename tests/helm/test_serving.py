"""The configuration that a pod is given, given to the command that it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from charts import RELAYS, Manifest, pods, rendered, rendered_example, the_container, values_of
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mounting import environment, mount
from redis_process import RedisProcess

from pathwatch.client import Client
from pathwatch.server.config import parse_limits
from pathwatch.v1 import run_pb2, run_pb2_grpc

Secrets = Mapping[str, Mapping[str, str]]
COMMAND = (sys.executable, "-m", "pathwatch.server.cli")
PROCESS_BYTES = 400 << 20
"""What the process takes beside data: twice what docs/operations.md says of one at work."""
SIZES = {"Mi": 1 << 20, "Gi": 1 << 30}


# One that has the volumes of a sidecar, a relay or not.
POD_LIKE_A_SIDECAR: Mapping[bool, Mapping[str, object]] = {
    False: {"mode": "service"},
    True: {"mode": "relay", "networkPolicy": {"enabled": False}},
}


def pod_of(release: list[Manifest], values: Mapping[str, object]) -> Manifest:
    """The pod, for mode sidecar one that holds what the templates for jobs say."""
    if values.get("mode") != "sidecar":
        (pod,) = pods(release)
        return pod
    (pod,) = pods(rendered({**values, **POD_LIKE_A_SIDECAR[bool(values.get("relay"))]}))
    return pod


def test_serve_takes_it(values_file: Path, release: list[Manifest], secrets: Secrets, tmp_path: Path) -> None:
    values = yaml.safe_load(values_file.read_text())
    pod = pod_of(release, values)
    arguments = mount(pod, release, secrets, tmp_path)
    done = subprocess.run(
        [*COMMAND, *arguments, "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment(pod, "demo-0")},
    )
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^limits\.(\w+): (\d+) ", done.stdout, re.MULTILINE))
    given = values.get("server", {}).get("limits", {})
    expected = parse_limits(f"{name}={value}" for name, value in given.items())
    assert {name: int(said[name]) for name in given} == {name: getattr(expected, name) for name in given}


def test_its_limits_fit_its_memory(values_file: Path, release: list[Manifest]) -> None:
    values = yaml.safe_load(values_file.read_text())
    (text,) = (m["data"]["serve.yaml"] for m in release if "serve.yaml" in m.get("data", {}))
    limits = parse_limits(f"{name}={value}" for name, value in yaml.safe_load(text)["limits"].items())
    memory = the_container(pod_of(release, values))["resources"]["limits"]["memory"]
    assert limits.memory_bytes + PROCESS_BYTES <= int(memory[:-2]) * SIZES[memory[-2:]]


@contextmanager
def serving(
    pod: Manifest, arguments: list[str], tmp_path: Path, name: str = "demo-0"
) -> Iterator[dict[str, str]]:
    """The container's command, in a pod of that name, on free ports; its addresses by name. Stopped as a
    kubelet stops it."""
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment(pod, name), "TMPDIR": str(tmp_path / "tmp")},
        )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first, (tmp_path / "log").read_text()
        yield dict(part.split("=", 1) for part in first.split())
        process.send_signal(signal.SIGTERM)
        assert process.wait(pod["spec"]["terminationGracePeriodSeconds"]) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answer(probe: Mapping[str, Mapping[str, object]], addresses: Mapping[str, str]) -> bool:
    """What a kubelet makes of the answer; like it, believing every certificate."""
    if "grpc" in probe:
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            request = health_pb2.HealthCheckRequest(service=str(probe["grpc"].get("service", "")))
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status
        return bool(status == health_pb2.HealthCheckResponse.SERVING)
    asked = probe["httpGet"]
    context = ssl._create_unverified_context() if asked["scheme"] == "HTTPS" else None  # noqa: S323
    url = f"{str(asked['scheme']).lower()}://{addresses[str(asked['port'])]}{asked['path']}"
    with urllib.request.urlopen(url, timeout=30, context=context) as response:  # noqa: S310
        return bool(response.status == 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plaintext", "tls", "relay", "relay-tls", "example"])
def test_what_it_starts_answers_its_probes_and_stops_in_time(
    name: str, secrets: Secrets, tmp_path: Path
) -> None:
    release = rendered_example(tmp_path) if name == "example" else rendered(values_of(name))
    (pod,) = pods(release)
    container = the_container(pod)
    arguments = mount(pod, release, secrets, tmp_path)
    with serving(pod, arguments, tmp_path) as addresses:
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                assert answer(container[kind], addresses), kind
    if name not in RELAYS:  # which keep nothing
        assert (tmp_path / "var/lib/pathwatch/data/pathwatch.sqlite3").stat().st_mode & 0o077 == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert all(json.loads(line)["event"] for line in lines)


@pytest.mark.slow
def test_pods_of_a_release_share_its_runs(tmp_path: Path) -> None:
    redis = RedisProcess(tmp_path / "redis", appendfsync="no")
    some = {"replicas": 2, "redis": {"url": redis.url}, "networkPolicy": {"enabled": False}}
    release = rendered({**values_of("plaintext"), **some, "persistence": {"enabled": False}})
    (pod,) = pods(release)
    try:
        with ExitStack() as stack:
            both = []
            for name in ("demo-pathwatch-0", "demo-pathwatch-1"):
                arguments = mount(pod, release, {}, tmp_path / name)
                both.append(stack.enter_context(serving(pod, arguments, tmp_path / name, name)))
            created = both[0]["grpc"]
            with Client(created) as client:
                client.create_run("pair", run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)))
            with grpc.insecure_channel(both[1]["grpc"]) as channel, pytest.raises(grpc.RpcError) as elsewhere:
                run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest(name="pair"), timeout=30)
            owner = "demo-pathwatch-0.demo-pathwatch-headless.research.svc:50051"
            assert ("pathwatch-owner", owner) in elsewhere.value.trailing_metadata()
    finally:
        redis.kill()
