"""The dashboards' JSON: up to date, complete, and nothing in it that leads nowhere."""

from __future__ import annotations

import ast
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana import MACRO, MACROS, Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model

from pathwatch.server.monitoring.dashboards.files import dashboard_files

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "server/pathwatch/server/monitoring/dashboards"
NAMES = ("run", "fleet")
CORE_PANELS = {"stat", "state-timeline", "table", "timeseries", "heatmap"}
PHASES = {
    "UNKNOWN": "#8a8f98",
    "LEARNING": "#4c78a8",
    "MEMORIZED": "#e0a030",
    "GENERALIZING": "#59a14f",
    "GENERALIZED": "#1a7f37",
    "OVERFITTING": "#d62728",
    "REGRESSING": "#9467bd",
}


@pytest.fixture(params=NAMES)
def shown(request: pytest.FixtureRequest) -> Dashboard:
    return Dashboard(FOLDER / f"{request.param}.json")


@pytest.fixture
def run() -> Dashboard:
    return Dashboard(FOLDER / "run.json")


def test_the_files_are_up_to_date() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == dashboard_files(), (
        "write them anew: python -m pathwatch.server.monitoring.dashboards"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_librarys_model_holds_them_whole(name: str) -> None:
    register_default_plugins()
    written = json.loads((FOLDER / f"{name}.json").read_text())
    again = json.loads(json.dumps(model.Dashboard.from_json(written), cls=JSONEncoder))
    for annotation in written["annotations"].get("list", []):
        # Grafana's Prometheus data source knows it, the model does not.
        assert annotation.pop("titleFormat")
    assert again == written


def test_names_are_unique(shown: Dashboard) -> None:
    numbers = [item["id"] for item in shown.items]
    assert len(set(numbers)) == len(numbers)
    titles = [item["title"] for item in shown.items]
    assert len(set(titles)) == len(titles)
    for panel in shown.panels:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def test_dashboards_are_told_apart() -> None:
    assert len({Dashboard(FOLDER / f"{name}.json").json["uid"] for name in NAMES}) == len(NAMES)


def cells(item: dict[str, Any]) -> set[tuple[int, int]]:
    at = item["gridPos"]
    return {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}


def test_panels_do_not_overlap(shown: Dashboard) -> None:
    for item in shown.items:
        assert 0 <= item["gridPos"]["x"] <= 24 - item["gridPos"]["w"], item["title"]
    for one, other in combinations(shown.items, 2):
        assert not cells(one) & cells(other), f"{one['title']} lies on {other['title']}"


def test_every_panel_says_what_it_shows_and_in_which_unit(shown: Dashboard) -> None:
    for panel in shown.panels:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"], panel["id"]
        assert len(panel["description"]) > 4, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert panel["targets"], panel["title"]


def test_nothing_but_prometheus_and_grafanas_own_panels_is_needed(shown: Dashboard) -> None:
    for panel in shown.panels:
        assert panel["type"] in CORE_PANELS, panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_variables_that_are_used_are_there(shown: Dashboard) -> None:
    queries = [asked.expr for asked in shown.queries()]
    queries += [str(variable["query"]) for variable in shown.variables.values()]
    titles = [*(item["title"] for item in shown.items), *(link["url"] for link in shown.json["links"])]
    used = {found[1] or found[2] for text in [*queries, *titles] for found in MACRO.finditer(text)}
    used |= {item["repeat"] for item in shown.items if item.get("repeat")}
    assert used - MACROS.keys() <= shown.variables.keys()


def test_overrides_name_lines_and_columns_that_are_there(shown: Dashboard) -> None:
    for panel in shown.panels:
        names = {target.get("legendFormat") for target in panel["targets"]}
        for transformation in panel["transformations"]:
            if transformation["id"] == "organize":
                renamed = transformation["options"]["renameByName"]
                assert set(renamed) == {f"Value #{target['refId']}" for target in panel["targets"]}
                names |= set(renamed.values())
        by = {
            label
            for target in panel["targets"]
            for label in re.findall(r"max by \(([^)]*)\)", target["expr"])
        }
        names |= {label for labels in by for label in labels.split(", ")}
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["id"] == "byName"
            assert override["matcher"]["options"] in names, panel["title"]
            for setting in override["properties"]:
                assert setting["id"] != "custom.fillBelowTo" or setting["value"] in names, panel["title"]


def test_links_lead_somewhere(shown: Dashboard) -> None:
    alerts = yaml.safe_load((FOLDER.parent / "rules" / "alerts.yaml").read_text())
    pages = {rule["annotations"]["runbook_url"] for group in alerts["groups"] for rule in group["rules"]}
    pages.add("docs/runbooks/README.md")
    for panel in shown.panels:
        for link in panel.get("links", []):
            assert link["url"] in pages, f"{panel['title']}: {link['url']}"


def test_a_click_on_a_run_opens_its_dashboard(run: Dashboard) -> None:
    opened = {
        override["matcher"]["options"]: setting["value"][0]["url"]
        for override in Dashboard(FOLDER / "fleet.json").panel("Runs")["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "links"
    }
    assert opened["run"].startswith(f"/d/{run.json['uid']}?var-run=")
    assert "run" in run.variables


def test_links_to_the_status_page_are_those_of_the_page_itself(run: Dashboard) -> None:
    (url,) = [link["url"] for link in run.json["links"] if link["title"] == "Status page"]
    runs = (ROOT / "server/pathwatch/server/statuspage/static/js/runs.js").read_text()
    assert url.removeprefix("${scheme}://${address}/").replace("${run}", "") == "#/runs/"
    assert "`#/runs/${encodeURIComponent(run.name)}`" in runs


def test_phases_have_the_same_words_and_colours_wherever_they_are_shown(run: Dashboard) -> None:
    timeline = run.panel("Phases")
    (mapping,) = timeline["fieldConfig"]["defaults"]["mappings"]
    assert {state["text"]: state["color"] for state in mapping["options"].values()} == PHASES
    (expr,) = [target["expr"] for target in timeline["targets"]]
    drawn = dict(re.findall(r'(\d) \* pathwatch_group_phase\{[^}]*phase="(\w+)"\}', expr))
    assert drawn == {number: state["text"] for number, state in mapping["options"].items()}
    fleet = Dashboard(FOLDER / "fleet.json").panel("Runs")
    shown = {
        override["matcher"]["options"].upper(): setting["value"]["steps"][-1]["color"]
        for override in fleet["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "thresholds"
    }
    assert {phase: shown[phase] for phase in PHASES} == PHASES


@pytest.mark.slow
def test_the_server_does_without_the_library() -> None:
    """It is there for developers only: nothing outside of the dashboards' own room may import either."""
    for path in (ROOT / "server").rglob("*.py"):
        if FOLDER in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(
                name.startswith(("grafana_foundation_sdk", "pathwatch.server.monitoring.dashboards"))
                for name in names
            ), path
