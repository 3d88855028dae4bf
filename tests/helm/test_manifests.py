"""Every values file of helm/pathwatch/ci: linted, rendered, and read as strictly as a cluster would."""

from __future__ import annotations

from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml
from charts import CHART, Manifest, distributed_example, rendered, rendered_example

VERSIONS = ("1.29", "1.37")
"""The oldest that the chart is for, and the newest whose schemas there are."""
OPERATORS = {"Certificate", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Kinds that clusters learn from operators; test_monitoring.py and test_network.py read these."""
SUBDOMAIN = 63


def test_lint_has_nothing_to_say(values_file: Path) -> None:
    values = yaml.safe_load(values_file.read_text())
    for version in VERSIONS:
        report = helm_python.lint(CHART, values, strict=True, kube_version=f"v{version}.0")
        assert report["errors"] == []
        assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_takes_every_manifest(release: list[Manifest], version: str) -> None:
    known = [manifest for manifest in release if manifest["kind"] not in OPERATORS]
    assert known
    for manifest in known:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_takes_the_examples(tmp_path: Path, version: str) -> None:
    for manifest in [*rendered_example(tmp_path), *distributed_example()]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_kubernetes_does_not_have_is_seen(release: list[Manifest]) -> None:
    """What the tests above rest on."""
    (manifest,) = (item for item in release if item["metadata"]["name"].endswith("-config"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "dat": {}}, VERSIONS[0], strict=True)


def test_everything_is_of_the_release_and_named_once(release: list[Manifest]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in release]
    assert len(set(names)) == len(names)
    for manifest in release:
        assert manifest["metadata"]["namespace"] == "research"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "demo"


def test_the_longest_name_of_a_release_leaves_room_for_what_is_added() -> None:
    values = {"image": {"repository": "r"}, "insecure": True, "monitoring": {"dashboards": {"enabled": True}}}
    for manifest in rendered(values, name="a" * 53):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
        # Of a pod: its own number comes after it.
        most = SUBDOMAIN - len("-0") if manifest["kind"] == "StatefulSet" else SUBDOMAIN
        if manifest["kind"] != "ConfigMap":
            assert len(manifest["metadata"]["name"]) <= most


def test_notes_say_what_stands_open() -> None:
    def notes(**values: object) -> str:
        with helm_python.Chart.load(CHART) as chart:
            texts = chart.render({"image": {"repository": "r"}, **values}, name="demo", namespace="research")
        return texts["pathwatch/templates/NOTES.txt"]

    opened = notes(insecure=True, persistence={"enabled": False}, networkPolicy={"enabled": False})
    for word in ("PLAINTEXT", "NO TOKENS", "NO VOLUME", "NO NETWORK POLICY"):
        assert word in opened
    closed = notes(tls={"enabled": True, "existingSecret": "s"}, tokens={"existingSecret": "t"})
    for word in ("PLAINTEXT", "NO TOKENS", "NO VOLUME", "NO NETWORK POLICY"):
        assert word not in closed
    assert "demo-pathwatch.research.svc:50051" in closed
