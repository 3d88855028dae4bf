"""docs/kubernetes.md, the chart's README and the plain manifests say what there is."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts import CHART, EXAMPLE, ROOT, pods, rendered, the, the_container, values_of

PAGE = ROOT / "docs" / "kubernetes.md"
README = CHART / "README.md"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [PAGE, README], ids=["page", "readme"])
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text())
    assert links
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in headings(target), f"{path}#{anchor}"


@pytest.mark.parametrize("page", [PAGE, README], ids=["page", "readme"])
def test_values_that_commands_set_are_there(page: Path) -> None:
    example = yaml.safe_load((EXAMPLE / "training-job" / "values.yaml").read_text())
    names = re.findall(r"--set ([\w.]+)=", page.read_text())
    assert len(names) >= 5
    for name in names:
        known: Any = {**DEFAULTS, "pathwatch": DEFAULTS} | ({"image": ""} if name == "image" else {})
        for part in name.split("."):
            assert part in known, name
            known = known[part]
    assert example["pathwatch"].keys() <= DEFAULTS.keys()


def test_values_that_the_page_shows_are_taken() -> None:
    blocks = [dedent(block) for block in re.findall(r"(?:^ {4,}.*\n)+", PAGE.read_text(), re.MULTILINE)]
    shown = [block for block in blocks if block.partition(":")[0] in DEFAULTS]
    assert len(shown) == 4
    for text in shown:
        assert rendered({**values_of("plaintext"), **yaml.safe_load(text)})


def test_what_the_page_calls_things_is_what_they_are_called() -> None:
    release = rendered(values_of("tls"), name="watch")
    stateful = the(release, "StatefulSet")["metadata"]["name"]
    claim = f"pathwatch-data-{stateful}-0"
    text = PAGE.read_text()
    assert f"statefulset/{stateful}" in text
    headless = the(release, "Service", "-headless")["metadata"]["name"]
    assert f"dns:///{headless}.pathwatch.svc:50051" in text
    assert f"{stateful}-N.{headless}.pathwatch.svc:50051" in text
    assert f"exec {stateful}-0 " in text
    assert f"`{claim}`" in text
    manifest = yaml.safe_load((EXAMPLE / "fsck.yaml").read_text())
    claims = [
        v["persistentVolumeClaim"]["claimName"]
        for v in manifest["spec"]["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    ]
    assert claims == [claim]


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_the_pod_for_a_look_at_the_files_sees_them_as_the_service_does(version: str) -> None:
    manifest = yaml.safe_load((EXAMPLE / "fsck.yaml").read_text())
    kubernetes_validate.validate(manifest, version, strict=True)
    (pod,) = pods(rendered(values_of("plaintext")))
    assert manifest["spec"]["securityContext"] == pod["spec"]["securityContext"]
    config = yaml.safe_load(the(rendered(values_of("plaintext")), "ConfigMap")["data"]["serve.yaml"])
    ours = the_container(manifest)
    assert ours["args"] == ["fsck", config["data"]]
    assert ours["volumeMounts"] == the_container(pod)["volumeMounts"][:2]
