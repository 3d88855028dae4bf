"""The dashboards as files: the JSON that is checked in and shipped."""

from __future__ import annotations

from collections.abc import Mapping

from pathwatch.server.monitoring.dashboards.fleet import fleet_dashboard
from pathwatch.server.monitoring.dashboards.layout import text_of
from pathwatch.server.monitoring.dashboards.run import run_dashboard


def dashboard_files() -> Mapping[str, str]:
    """JSON by name of the file."""
    return {"run.json": text_of(run_dashboard()), "fleet.json": text_of(fleet_dashboard())}
