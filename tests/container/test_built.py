"""What the Dockerfile installs, installed by its own steps, and run where next to nothing can be written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from image import ROOT, build_first_stage

pytestmark = [pytest.mark.tools, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Image:
    """What would be at / of a container."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "opt" / "pathwatch"

    @property
    def environment(self) -> Mapping[str, str]:
        """As the last stage sets it; a home that nobody can write to."""
        return {
            "PATH": f"{self.venv / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def popen(self, *command: object) -> subprocess.Popen[str]:
        """Without root's rights over files that say who may write them."""
        rightless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
        return subprocess.Popen(
            [*(rightless if os.geteuid() == 0 else ()), *map(str, command)],
            cwd=self.root,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: object) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        process = self.popen(*command)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("image")
    built = Image(root)
    build_first_stage(root, {"VENV": str(built.venv)})
    for name in ("home", "tmp", "data"):
        (root / name).mkdir()
    subprocess.run(["chmod", "-R", "a-w", built.venv, root / "home"], check=True)
    root.chmod(0o555)
    return built


def test_its_root_is_read_only(image: Image) -> None:
    """What the tests below rest on."""
    for folder in (image.root, image.root / "home", image.venv / "lib"):
        code, _, err = image.run("touch", folder / "new")
        assert code == 1
        assert "Permission denied" in err
    assert image.run("touch", image.root / "data" / "new")[0] == 0


def test_no_framework_no_installer_and_no_sources_are_in_it(image: Image) -> None:
    for module in ("torch", "deepspeed", "transformers", "pip", "pytest"):
        code, _, err = image.run(image.venv / "bin" / "python", "-c", f"import {module}")
        assert code == 1
        assert f"No module named '{module}'" in err
    code, out, _ = image.run(
        image.venv / "bin" / "python", "-c", "import pathwatch.server.app as app; print(app.__file__)"
    )
    assert code == 0
    assert out.startswith(str(image.venv))


def test_versions_are_the_pinned_ones(image: Image) -> None:
    listing = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    code, out, err = image.run(image.venv / "bin" / "python", "-c", listing)
    assert code == 0, err

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {plain(name): version for name, version in pinned.items()}
    installed = {plain(name): version for name, version in (line.split() for line in out.splitlines())}
    assert installed.pop("pathwatch")
    assert len(installed) > 10
    assert {name: pinned.get(name) for name in installed} == installed


def test_the_server_runs_with_a_root_that_it_cannot_write_to(image: Image) -> None:
    arguments = ("--data", image.root / "data" / "d", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
    process = image.popen("pathwatch", "serve", *arguments)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert first, process.communicate(timeout=30)[1]
        addresses = dict(part.split("=", 1) for part in first.split())
        with grpc.insecure_channel(addresses["grpc"]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answered = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answered.status == health_pb2.HealthCheckResponse.SERVING
        for path in ("/healthz", "/metrics", "/", "/static/js/api.js"):
            with urllib.request.urlopen(f"http://{addresses['http']}{path}", timeout=30) as response:
                assert response.status == 200
                assert response.read()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert '"level": "error"' not in log
    finally:
        process.kill()
        process.communicate()


def test_commands_for_schedulers_and_people_are_there(image: Image) -> None:
    code, out, err = image.run("pathwatch", "monitoring", "--out", image.root / "data" / "kit")
    assert code == 0, err
    assert "prometheus --config.file=" in out
    code, _, err = image.run("pathwatch", "token", "job", "--scope", "ingest")
    assert code == 0, err
