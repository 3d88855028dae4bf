"""What wakes somebody: every rule with promtool, every alert with a page that says what to do."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "server" / "pathwatch" / "server" / "monitoring" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
SECTIONS = ("Meaning.", "Impact.", "Check.", "Do.", "False alarms.")


def rules_of(file: str) -> list[dict[str, Any]]:
    loaded = yaml.safe_load((RULES / file).read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules_of("alerts.yaml")}


@functools.cache
def all_cases() -> Sequence[dict[str, Any]]:
    return [test for case in CASES for test in yaml.safe_load(case.read_text())["tests"]]


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


@pytest.mark.tools
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_alerts_fire_with_these_words_and_not_beside(case: Path) -> None:
    promtool("test", "rules", case)


@pytest.mark.tools
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_no_alert_about_a_run_rings_once_it_is_finished(case: Path, tmp_path: Path) -> None:
    """The same data, of runs that take no more."""
    # All as text: to YAML 0x100, a hundred times 0 and one more, is 256.
    loaded = yaml.load(case.read_text(), yaml.BaseLoader)  # noqa: S506 (it makes nothing but text)
    loaded["rule_files"] = [str((case.parent / path).resolve()) for path in loaded["rule_files"]]
    changed = 0
    for test in loaded["tests"]:
        test.pop("promql_expr_test", None)
        for series in test["input_series"]:
            if series["series"].startswith("pathwatch_run_active{"):
                series["values"] = "0x1000"
        for expected in test.get("alert_rule_test", []):
            left = [alert for alert in expected["exp_alerts"] if "run" not in alert["exp_labels"]]
            changed += len(expected["exp_alerts"]) - len(left)
            expected["exp_alerts"] = left
    assert changed or case.stem in {"room", "service"}
    finished = tmp_path / "finished.yaml"
    finished.write_text(yaml.safe_dump(loaded))
    promtool("test", "rules", finished)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_seen_to_ring_and_to_be_silent(alert: str) -> None:
    cases = [
        case for test in all_cases() for case in test.get("alert_rule_test", []) if case["alertname"] == alert
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)
    for ringing in (one for case in cases for one in case["exp_alerts"]):
        assert ringing["exp_labels"]["severity"] == ALERTS[alert]["labels"]["severity"]
        assert set(ringing["exp_annotations"]) == {"summary", "description", "runbook_url"}


def test_every_recording_rule_has_a_value_to_compare_with() -> None:
    compared = " ".join(case["expr"] for test in all_cases() for case in test.get("promql_expr_test", []))
    by_alerts = " ".join(rule["expr"] for rule in ALERTS.values())
    for rule in rules_of("recording.yaml"):
        assert rule["record"] in compared or rule["record"] in by_alerts, rule["record"]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_is_wrong_and_leads_to_its_page(alert: str) -> None:
    rule = ALERTS[alert]
    severity = rule["labels"]["severity"]
    assert severity in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{ $labels." in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (RUNBOOKS / f"{alert}.md").read_text()
    title, _, told = page.split("\n", 2)
    assert title == f"# {alert}"
    assert told.startswith(f"**{severity}** · ")
    found = re.findall(r"^\*\*([A-Z][a-z ]+\.)\*\* \S", page, re.MULTILINE)
    assert tuple(found) == SECTIONS
    row = re.search(rf"^\| \[{alert}\]\({alert}\.md\) \| (\w+) \| .+ \| (\w+) \|$", overview(), re.MULTILINE)
    assert row is not None
    assert row.groups() == (severity, rule.get("for", "0m"))


def overview() -> str:
    return (RUNBOOKS / "README.md").read_text()


def test_no_page_and_no_row_is_left_of_an_alert_that_is_gone() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {*ALERTS, "README"}
    assert sorted(re.findall(r"^\| \[(\w+)\]", overview(), re.MULTILINE)) == sorted(ALERTS)


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
