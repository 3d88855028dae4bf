"""Prometheus and Grafana set up for sidecars: the files of `pathwatch monitoring`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

ROOM = "pathwatch.server.monitoring"
RULES = ("recording.yaml", "alerts.yaml")
DASHBOARDS = ("run.json", "fleet.json")
SCRAPE_SECONDS = 15
RUNBOOKS = "docs/runbooks/"
"""What addresses of runbooks begin with in what is shipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """Where /metrics is, and how it is asked for."""

    targets: Sequence[str]
    """HOST:PORT of each."""
    tls: bool = False
    ca: Path | None = None
    """Authority that signed their certificates, PEM; None = the public ones."""
    token_file: Path | None = None


def kit_files(
    folder: Path, sidecars: Sidecars, *, prometheus_url: str, runbooks: str | None
) -> Mapping[str, str]:
    """Text by path below `folder`, which is where Grafana is to find the dashboards.

    `runbooks` is where the pages of docs/runbooks are read; without, dashboards link to none.
    """
    scheme = "https" if sidecars.tls else "http"
    grafana = f"{folder / 'grafana' / 'dashboards'}"
    return {
        "prometheus.yml": _yaml(_prometheus(sidecars, scheme)),
        **{f"rules/{name}": _rules(name, runbooks) for name in RULES},
        "grafana/provisioning/datasources/pathwatch.yaml": _yaml(_datasource(prometheus_url)),
        "grafana/provisioning/dashboards/pathwatch.yaml": _yaml(_provider(grafana)),
        **{f"grafana/dashboards/{name}": _dashboard(name, scheme, runbooks) for name in DASHBOARDS},
    }


def _prometheus(sidecars: Sidecars, scheme: str) -> Mapping[str, object]:
    scrape: dict[str, object] = {"job_name": "pathwatch", "scheme": scheme}
    if sidecars.ca is not None:
        scrape["tls_config"] = {"ca_file": str(sidecars.ca)}
    if sidecars.token_file is not None:
        scrape["authorization"] = {"credentials_file": str(sidecars.token_file)}
    scrape["static_configs"] = [{"targets": list(sidecars.targets)}]
    every = f"{SCRAPE_SECONDS}s"
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": [f"rules/{name}" for name in RULES],
        "scrape_configs": [scrape],
    }


def _datasource(url: str) -> Mapping[str, object]:
    source = {
        "name": "Prometheus",
        "uid": "pathwatch-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": url,
        "isDefault": True,
        # Rates are taken over a multiple of it.
        "jsonData": {"timeInterval": f"{SCRAPE_SECONDS}s", "httpMethod": "POST"},
    }
    return {"apiVersion": 1, "datasources": [source]}


def _provider(folder: str) -> Mapping[str, object]:
    provider = {
        "name": "pathwatch",
        "folder": "pathwatch",
        "type": "file",
        "options": {"path": folder},
    }
    return {"apiVersion": 1, "providers": [provider]}


def _rules(name: str, runbooks: str | None) -> str:
    text = (files(ROOM) / "rules" / name).read_text()
    return text if runbooks is None else text.replace(f": {RUNBOOKS}", f": {runbooks}")


def _dashboard(name: str, scheme: str, runbooks: str | None) -> str:
    board = json.loads((files(ROOM) / "dashboards" / name).read_text())
    for variable in board["templating"]["list"]:
        if variable["name"] == "scheme":
            variable["query"] = scheme
    for item in board["panels"]:
        for panel in (item, *item.get("panels", [])):
            _point(panel, runbooks)
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


def _point(panel: dict[str, Any], runbooks: str | None) -> None:
    if runbooks is None:
        panel.pop("links", None)
    for link in panel.get("links", []):
        link["url"] = link["url"].replace(RUNBOOKS, runbooks)


def _yaml(content: Mapping[str, object]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
