"""When the events over the charts of a run are, by promtool's own evaluation of made-up scrapes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from grafana import Dashboard

ROOT = Path(__file__).parents[3]
RUN = Dashboard(ROOT / "server/pathwatch/server/monitoring/dashboards/run.json")
EVENTS = {event["name"]: event["expr"] for event in RUN.json["annotations"]["list"]}


@pytest.mark.parametrize(
    ("name", "series", "scrapes", "begins"),
    [
        ("Stop advised", 'pathwatch_run_action{run="r",action="STOP"}', "0 0 1 1 1", {2: "{action='STOP'}"}),
        # A scrape that failed, and a sidecar that was away for a minute, are no beginnings.
        (
            "Stop advised",
            'pathwatch_run_action{run="r",action="STOP"}',
            "0 1 stale 1 1",
            {1: "{action='STOP'}"},
        ),
        (
            "Stop advised",
            'pathwatch_run_action{run="r",action="STOP"}',
            "1 stale _ _ _ 1",
            {0: "{action='STOP'}"},
        ),
        ("Stop advised", 'pathwatch_run_action{run="other",action="STOP"}', "0 0 1 1 1", {}),
        (
            "Checkpoint advised",
            'pathwatch_run_action{run="r",action="CHECKPOINT"}',
            "0 1 0 1 1",
            {1: "{action='CHECKPOINT'}", 3: "{action='CHECKPOINT'}"},
        ),
        (
            "Checkpoint chosen",
            'pathwatch_best_checkpoint_step{run="r",group=""}',
            "_ 100 100 stale 100 200 200",
            {1: "{step='100'}", 5: "{step='200'}"},
        ),
        ("Checkpoint chosen", 'pathwatch_best_checkpoint_step{run="r",group="math"}', "1 1 2", {}),
        (
            "Checkpoint chosen of a group",
            'pathwatch_best_checkpoint_step{run="r",group="math"}',
            "1 1 2",
            {0: "{group='math', step='1'}", 2: "{group='math', step='2'}"},
        ),
        ("Attempt", 'pathwatch_run_attempt{run="r"}', "0 0 1 1", {0: "{attempt='0'}", 2: "{attempt='1'}"}),
    ],
)
def test_an_event_is_where_something_began(
    tmp_path: Path, name: str, series: str, scrapes: str, begins: dict[int, str]
) -> None:
    expr = RUN.filled(EVENTS[name], {"run": "r"}).replace("offset 1s", "offset 15s")
    checks = [
        {
            "expr": expr,
            "eval_time": f"{15 * number}s",
            "exp_samples": [{"labels": begins[number].replace("'", '"'), "value": 1}]
            if number in begins
            else [],
        }
        for number in range(len(scrapes.split()))
    ]
    test = {
        "interval": "15s",
        "input_series": [{"series": series.replace("{", '{instance="s",'), "values": scrapes}],
        "promql_expr_test": checks,
    }
    path = tmp_path / "events.yaml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
