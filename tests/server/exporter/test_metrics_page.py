"""docs/metrics.md lists what is published, as it is published."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from memory_leases import LeaseTable, MemoryLeases
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pathwatch.server.app import BackgroundServer
from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.lease_collector import LeaseCollector
from pathwatch.server.exporter.names import METRIC_HELP, PREFIX, is_metric_name
from pathwatch.server.exporter.webhook_collector import WebhookCollector
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.relay.collector import RelayCollector
from pathwatch.server.relay.counts import RelayCounts

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
THRESHOLDS = re.compile(r"path_distance_tau_\d_\d")
WITHOUT_SERIES = {
    "pathwatch_run_stop_at_step",
    "pathwatch_snapshot_age_seconds",
    "pathwatch_webhook_deliveries_total",
    "pathwatch_webhook_pending",
}
"""Families of which a server on which all goes well has no series."""


class Row(NamedTuple):
    """Of the table."""

    name: str
    kind: str
    labels: str
    text: str


def rows_of_page() -> list[Row]:
    section = PAGE.partition("## All series")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    rows = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return [row._replace(name=row.name.strip("`")) for row in rows]


def row(family: Metric) -> Row:
    suffix = "_total" if family.type == "counter" else ""
    labels = family.samples[0].labels if family.samples else {}
    return Row(
        family.name + suffix, family.type, ", ".join(n for n in labels if n != "le"), family.documentation
    )


@pytest.fixture(scope="module")
def families(replayed: BackgroundServer) -> list[Metric]:
    """Ours, as they are scraped, and those of relays, webhooks and leases, which the server has none of."""
    with urllib.request.urlopen(f"http://{replayed.http_address}/metrics", timeout=30) as response:
        scraped = text_string_to_metric_families(response.read().decode())
        return [
            *(family for family in scraped if family.name.startswith((PREFIX, "grpc_"))),
            *WebhookCollector(DeliveryCounts()).collect(),
            *RelayCollector(RelayCounts()).collect(),
            *LeaseCollector(MemoryLeases(LeaseTable(), "shard:1"), Stats()).collect(),
        ]


def is_of_groups(family: Metric) -> bool:
    name = family.name.removeprefix(PREFIX)
    return name in METRIC_HELP or THRESHOLDS.fullmatch(name) is not None


def test_the_table_of_all_series_is_that_of_a_scrape(families: list[Metric]) -> None:
    rows = rows_of_page()
    published = [row(family) for family in families if not is_of_groups(family)]
    assert len({one.name for one in rows}) == len(rows)
    known = {one.name: one for one in rows}
    for one in published:
        listed = known.pop(one.name)
        if one.name in WITHOUT_SERIES:
            listed = listed._replace(labels="")
        assert listed == one
    assert not known, "the page lists what is not published"


def test_every_metric_of_groups_is_in_the_first_table(families: list[Metric]) -> None:
    table = PAGE.partition("| name | means |")[2].partition("\n\n")[0]
    names = set(names_of(table))
    for family in families:
        name = family.name.removeprefix(PREFIX)
        if is_of_groups(family) and not THRESHOLDS.fullmatch(name):
            assert name in names, name


def names_of(table: str) -> Iterator[str]:
    for line in table.splitlines():
        yield from re.findall(r"`([a-z_0-9]+)`", line.split("|")[1] if line.startswith("|") else "")


def test_no_plug_in_can_take_the_name_of_another_family(families: list[Metric]) -> None:
    for family in families:
        if family.name.startswith(PREFIX):
            name = family.name.removeprefix(PREFIX)
            assert is_metric_name(name) == is_of_groups(family), name
