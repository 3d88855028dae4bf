"""The Dockerfile read, and its first stage built without a container engine: in a folder instead of at /."""

from __future__ import annotations

import fnmatch
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
BUILD_SECONDS = 800
"""Most that a step may take: everything is downloaded."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of the Dockerfile, lines that go on joined."""

    name: str
    value: str


def instructions() -> list[Instruction]:
    """All, without comments."""
    parser = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()))
    return [
        Instruction(item["instruction"], item["value"])
        for item in parser.structure
        if item["instruction"] != "COMMENT"
    ]


def stages() -> list[list[Instruction]]:
    """What is before the first FROM, then stage by stage, each with its FROM."""
    found: list[list[Instruction]] = [[]]
    for instruction in instructions():
        if instruction.name == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def is_in_context(name: str) -> bool:
    """Whether .dockerignore lets a file or folder at the top through: the last line that fits it counts."""
    inside = True
    for pattern in _ignored():
        if fnmatch.fnmatchcase(name, pattern.removeprefix("!")):
            inside = pattern.startswith("!")
    return inside


def build_first_stage(root: Path, arguments: Mapping[str, str]) -> None:
    """Run it, with `arguments` as `--build-arg`s, WORKDIRs below `root`. A step that fails is an error."""
    first = stages()[1]
    with TemporaryDirectory() as shims:
        _build(first, root, arguments, _environment(root, Path(shims)))


def _environment(root: Path, shims: Path) -> dict[str, str]:
    """`python` is this one, as in the image; pip finds packages as it does here."""
    python = Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info)
    shim = shims / "python"
    shim.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    shim.chmod(0o755)
    environment = {"PATH": f"{shims}:{os.environ['PATH']}", "HOME": str(root)}
    config = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "pip" / "pip.conf"
    if config.exists():
        environment["PIP_CONFIG_FILE"] = str(config)
    return environment | {name: value for name, value in os.environ.items() if _is_for_pip(name)}


def _is_for_pip(name: str) -> bool:
    return (
        name.startswith("PIP_")
        or name.lower().endswith("_proxy")
        or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    )


def _build(
    first: Sequence[Instruction], root: Path, arguments: Mapping[str, str], environment: dict[str, str]
) -> None:
    folder = root
    for instruction in first[1:]:
        if instruction.name == "ARG":
            name, _, default = instruction.value.partition("=")
            environment[name] = arguments.get(name, default)
        elif instruction.name == "WORKDIR":
            folder = root / instruction.value.lstrip("/")
            folder.mkdir(parents=True)
        elif instruction.name == "COPY":
            *sources, target = instruction.value.split()
            for source in sources:
                _copy(source, folder / target if len(sources) == 1 else folder / target / source)
        elif instruction.name == "RUN":
            _run(["sh", "-ec", instruction.value], folder, environment)
        else:
            raise AssertionError(f"{instruction.name} is not known here")


def _copy(source: str, target: Path) -> None:
    assert is_in_context(source), f".dockerignore keeps {source} out"
    if (ROOT / source).is_dir():
        hidden = [pattern.removeprefix("**/") for pattern in _ignored() if pattern.startswith("**/")]
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns(*hidden))
    else:
        shutil.copy(ROOT / source, target)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _ignored() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
