"""Sections of panels, laid out below each other, and what both dashboards have around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, VariableRefresh

from pathwatch.server.monitoring.dashboards.panels import AnyPanel
from pathwatch.server.monitoring.dashboards.queries import DATASOURCE

TAG = "pathwatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Panels under a heading; without a title at the top of the page."""

    title: str
    panels: Sequence[AnyPanel]
    collapsed: bool = False


def started(uid: str, title: str, description: str, *, since: str) -> dashboard.Dashboard:
    """A dashboard without panels, with the choice of a Prometheus and the way to the other dashboards."""
    others = dashboard.DashboardLink("pathwatch").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(since, "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others.as_dropdown(False).include_vars(False).keep_time(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(dashboard.ConstantVariable("scheme").value("http"))
    )


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable whose values come from Prometheus."""
    variable = dashboard.QueryVariable(name).label(label).datasource(DATASOURCE)
    return variable.query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def laid_out(page: dashboard.Dashboard, sections: Sequence[Section]) -> model.Dashboard:
    """The finished dashboard: sections from top to bottom, panels numbered."""
    for section in sections:
        row = dashboard.Row(section.title).collapsed(section.collapsed)
        if section.collapsed:
            for panel in section.panels:
                row.with_panel(panel)
        if section.title:
            page.with_row(row)
        if not section.collapsed:
            for panel in section.panels:
                page.with_panel(panel)
    built = page.build()
    for number, item in enumerate(all_panels(built), 1):
        item.id_val = number
    return built


def all_panels(page: model.Dashboard) -> list[model.Panel | model.RowPanel]:
    """Rows, and panels inside and outside of them, from top to bottom."""
    found: list[model.Panel | model.RowPanel] = []
    for item in page.panels or []:
        found.append(item)
        if isinstance(item, model.RowPanel):
            found += item.panels
    return found


def text_of(page: model.Dashboard) -> str:
    """The JSON that Grafana imports."""
    return json.dumps(page, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
