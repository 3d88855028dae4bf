"""Tables that lay the answers of many queries side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.common import TableCellHeight
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    ValueMapping,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from pathwatch.server.monitoring.dashboards.panels import Steps, dressed
from pathwatch.server.monitoring.dashboards.queries import REFS, Query, now

_PLAIN = {"type": "auto"}
_COLOURED = {"type": "color-background", "mode": "basic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One query's values. Coloured where it has words or steps."""

    title: str
    expr: str
    unit: str = "locale"
    mappings: Sequence[ValueMapping] = ()
    steps: Steps | None = None
    decimals: int | None = None


def merged(
    labels: Sequence[str],
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    height: int,
    links: Mapping[str, tuple[str, str]] | None = None,
    runbooks: Sequence[str] = (),
) -> table.Panel:
    """One row per set of values of `labels`, which every column's query has and no others; as of now.

    `links`: by label, title and address of what a click on it opens.
    """
    panel = dressed(
        table.Panel(), title, description, "locale", span=24, height=height, runbooks=runbooks, no_value="–"
    )
    panel.targets(now([Query(column.expr) for column in columns], PromQueryFormat.TABLE))
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{ref}": column.title for ref, column in zip(REFS, columns, strict=False)}
    order = {name: place for place, name in enumerate(["Time", *labels, *names])}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=organize))
    for label, (opens, url) in (links or {}).items():
        link = DynamicConfigValue(id_val="links", value=[{"title": opens, "url": url}])
        panel.override_by_name(label, [link])
    for column in columns:
        panel.override_by_name(column.title, _properties(column))
    return panel.show_header(True).cell_height(TableCellHeight.SM)


def _properties(column: Column) -> list[DynamicConfigValue]:
    coloured = bool(column.mappings or column.steps)
    found = [
        DynamicConfigValue(id_val="unit", value=column.unit),
        DynamicConfigValue(id_val="custom.cellOptions", value=_COLOURED if coloured else _PLAIN),
    ]
    if column.decimals is not None:
        found.append(DynamicConfigValue(id_val="decimals", value=column.decimals))
    if column.mappings:
        found.append(DynamicConfigValue(id_val="mappings", value=list(column.mappings)))
    if coloured:
        steps = column.steps or {None: "transparent"}
        made = [{"value": value, "color": colour} for value, colour in steps.items()]
        found.append(DynamicConfigValue(id_val="thresholds", value={"mode": "absolute", "steps": made}))
        found.append(DynamicConfigValue(id_val="color", value={"mode": "thresholds"}))
    return found
