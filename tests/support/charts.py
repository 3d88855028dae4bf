"""The Helm chart and the example that depends on it, rendered by Helm."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "pathwatch"
EXAMPLE = ROOT / "examples" / "kubernetes"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
NAMESPACE = "research"

Manifest = dict[str, Any]


def values_of(name: str) -> dict[str, Any]:
    """Of `ci/NAME-values.yaml`."""
    loaded: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return loaded


def names_of(mode: str) -> list[str]:
    """Of the values files in that mode."""
    names = (path.stem.removesuffix("-values") for path in CI_VALUES)
    return [name for name in names if values_of(name).get("mode", "service") == mode]


SERVICES, RELAYS = names_of("service"), names_of("relay")


def rendered(values: Mapping[str, Any], chart: Path = CHART, name: str = "demo") -> list[Manifest]:
    """All manifests of a release. Raises helm_python.HelmError."""
    with helm_python.Chart.load(chart) as loaded:
        texts = loaded.render(dict(values), name=name, namespace=NAMESPACE)
    return [
        manifest
        for path, text in sorted(texts.items())
        if path.endswith(".yaml")
        for manifest in yaml.load_all(text, yaml.CSafeLoader)
        if manifest
    ]


def rendered_example(folder: Path, **pathwatch: object) -> list[Manifest]:
    """Of examples/kubernetes/training-job, with the chart that it depends on put where Helm looks for it.

    `pathwatch` is what is said to that chart.
    """
    chart = folder / "training-job"
    shutil.copytree(EXAMPLE / "training-job", chart)
    shutil.copytree(CHART, chart / "charts" / "pathwatch")
    return rendered({"pathwatch": pathwatch}, chart)


def distributed_example() -> list[Manifest]:
    """Of examples/kubernetes/distributed-job.yaml."""
    return list(yaml.safe_load_all((EXAMPLE / "distributed-job.yaml").read_text()))


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """Those of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests: Iterable[Manifest], kind: str, ending: str = "") -> Manifest:
    """The one of its kind whose name ends so."""
    (found,) = (m for m in of_kind(manifests, kind) if m["metadata"]["name"].endswith(ending))
    return found


def pods(manifests: Iterable[Manifest]) -> Iterator[Manifest]:
    """Templates of pods: `metadata` and `spec`."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest["spec"]["template"]


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod, those that come first too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def the_container(pod: Manifest) -> Manifest:
    """That of pathwatch."""
    (found,) = (container for container in containers(pod) if container["name"] == "pathwatch")
    return found


def is_selected(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a selector's matchLabels choose what has these labels; none choose everything."""
    return selector.items() <= labels.items()
