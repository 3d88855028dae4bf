"""`python -m pathwatch.server.monitoring.dashboards`: writes the JSON beside this module anew."""

from __future__ import annotations

from pathlib import Path

from pathwatch.server.monitoring.dashboards.files import dashboard_files

for name, text in dashboard_files().items():
    Path(__file__).with_name(name).write_text(text)
