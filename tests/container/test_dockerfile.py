"""The Dockerfile read: linted, pinned, without rights, and what the chart takes it for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from image import DOCKERFILE, ROOT, Instruction, instructions, is_in_context, stages

HADOLINT = Path(sys.executable).with_name("hadolint")


def values_of(stage: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in stage if instruction.name == name]


def linted(path: Path) -> str:
    done = subprocess.run(
        [HADOLINT, "--no-color", "--failure-threshold", "style", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stdout == "")
    return done.stdout


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    assert linted(DOCKERFILE) == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text().replace("USER 10001:10001", "USER root"))
    assert "DL3002" in linted(worse)


def test_every_base_is_pinned_by_a_digest_that_has_to_be_given() -> None:
    first, *rest = stages()
    assert "PYTHON_DIGEST" in values_of(first, "ARG"), "without a default"
    assert len(rest) == 2
    for stage in rest:
        (base,) = values_of(stage, "FROM")
        assert base.split(" AS ")[0].endswith("@${PYTHON_DIGEST}")


def test_it_is_the_python_that_the_package_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (base,) = values_of(stages()[-1], "FROM")
    version = re.match(r"python:(\d+\.\d+)-slim@", base)
    assert version is not None
    assert project["requires-python"] == f">={version[1]}"


def test_it_ends_as_the_user_and_with_the_ports_of_the_chart() -> None:
    final = stages()[-1]
    values = yaml.safe_load((ROOT / "helm" / "pathwatch" / "values.yaml").read_text())
    user = values["runAsUser"]
    assert values_of(final, "USER") == [f"{user}:{user}"]
    assert final.index(Instruction("USER", f"{user}:{user}")) > max(
        number for number, instruction in enumerate(final) if instruction.name in ("RUN", "COPY")
    )
    (exposed,) = values_of(final, "EXPOSE")
    assert exposed.split() == ["50051", "9464"]
    (entrypoint,) = values_of(final, "ENTRYPOINT")
    assert json.loads(entrypoint) == ["pathwatch"]


def test_the_final_stage_installs_nothing_and_takes_only_what_was_built() -> None:
    final = stages()[-1]
    assert values_of(final, "COPY") == ["--from=build ${VENV} ${VENV}"]
    assert not any("pip" in run or "apt" in run for run in values_of(final, "RUN"))


def test_packages_are_those_of_the_constraints_and_none_of_training() -> None:
    build = stages()[1]
    (run,) = values_of(build, "RUN")
    assert "-c constraints.txt" in run
    (extras,) = (value.partition("=")[2] for value in values_of(build, "ARG") if value.startswith("EXTRAS"))
    assert set(extras.split(",")) == {"server", "cli"}


@pytest.mark.parametrize(
    "name", [".git", ".venv", "tests", "bench", "helm", "docs", "examples", "demo-out", ".env"]
)
def test_nothing_else_is_sent_to_the_builder(name: str) -> None:
    assert not is_in_context(name)


def test_what_is_copied_is_sent_to_the_builder() -> None:
    copied = [
        source
        for instruction in instructions()
        if instruction.name == "COPY" and not instruction.value.startswith("--from")
        for source in instruction.value.split()[:-1]
    ]
    assert "server" in copied
    for source in copied:
        assert is_in_context(source), source
        assert (ROOT / source).exists(), source
