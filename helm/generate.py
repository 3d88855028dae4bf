#!/usr/bin/env python
"""Writes what the chart has from elsewhere: rules, dashboards, the README's table, the example's manifest.

python helm/generate.py
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "pathwatch"
MONITORING = ROOT / "server" / "pathwatch" / "server" / "monitoring"
EXAMPLE = ROOT / "examples" / "kubernetes"
BEGIN, END = "<!-- values: written by helm/generate.py -->\n", "<!-- end of values -->\n"


def generated() -> Mapping[Path, str]:
    """Text by file."""
    copies = {
        CHART / "files" / kind / source.name: source.read_text()
        for kind, pattern in (("rules", "*.yaml"), ("dashboards", "*.json"))
        for source in sorted((MONITORING / kind).glob(pattern))
    }
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        **copies,
        readme: f"{before}{BEGIN}{values_table()}{END}{after}",
        EXAMPLE / "job.yaml": example_manifest(),
    }


def values_table() -> str:
    """All values with their defaults and what their schema says of them, in Markdown."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = "".join(
        f"| `{name}` | `{json.dumps(default, ensure_ascii=False)}` | {what} |\n"
        for name, default, what in _rows(schema, values, "")
    )
    return f"| value | default | is |\n| --- | --- | --- |\n{rows}"


def _rows(
    schema: Mapping[str, Any], values: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Any, str]]:
    for name, default in values.items():
        item = schema["properties"][name]
        if "properties" in item and "description" not in item:
            yield from _rows(item, default, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default, item["description"]


def example_manifest() -> str:
    """The example chart with the chart it depends on, as plain manifests."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / "training-job"
        shutil.copytree(EXAMPLE / "training-job", chart)
        shutil.copytree(CHART, chart / "charts" / "pathwatch", ignore=shutil.ignore_patterns("files", "ci"))
        with helm_python.Chart.load(chart) as loaded:
            rendered = loaded.render({}, name="demo", namespace="training")
    manifests = [text.strip() for name, text in sorted(rendered.items()) if name.endswith(".yaml")]
    what = "# examples/kubernetes/training-job, rendered by helm/generate.py.\n"
    return what + "".join(f"---\n{text}\n" for text in manifests if text)


def main() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
