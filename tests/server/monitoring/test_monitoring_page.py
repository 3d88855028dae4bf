"""docs/monitoring.md says what there is: files, options, rows of the dashboards, alerts."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from grafana import Dashboard

from pathwatch.server.cli.root import pathwatch

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "monitoring.md").read_text()
DASHBOARDS = ROOT / "server/pathwatch/server/monitoring/dashboards"


def test_links_lead_to_pages_and_headings_that_are_there() -> None:
    for path, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", TEXT):
        page = ROOT / "docs" / (path or "monitoring.md")
        assert page.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }


def test_all_options_are_explained() -> None:
    command = pathwatch.get_command(click.Context(pathwatch), "monitoring")
    assert command is not None
    there = {param.opts[0] for param in command.params} - {"--config"}
    table = TEXT.partition("| option of")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(--[\w-]+)[ `]", table)) - {"--http", "--http-tls", "--http-tokens"} == there


@pytest.mark.parametrize("name", ["Run", "Fleet"])
def test_all_rows_are_explained(name: str) -> None:
    section = TEXT.partition(f"## {name}, row by row")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| (?:\*(.*?)\*|top) \|", section, re.MULTILINE)
    rows = [
        item["title"]
        for item in Dashboard(DASHBOARDS / f"{name.lower()}.json").items
        if item["type"] == "row"
    ]
    assert len(explained) == len(rows) + 1
    assert all(row.startswith(said) for said, row in zip(explained[1:], rows, strict=True))
