"""The rules over what a real server says, in a real Prometheus."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lone_shard import lone_shard
from prometheus import PrometheusProcess
from recorded_run import RecordedRun, made_up, recorded

from pathwatch.client import Client, PathwatchError
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, ServerConfig
from pathwatch.v1 import run_pb2, signal_pb2

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "server" / "pathwatch" / "server" / "monitoring" / "rules").glob("*.yaml"))
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
OF_PROMETHEUS = {"up", "ALERTS"}
NOT_NAMES = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "on",
    "without",
    "ignoring",
    "group_right",
    "group_left",
}
LOOKS_BACK_AN_HOUR = "group:pathwatch_expert_load_max_ratio:baseline"
RUN = "told-to-stop"


def names_in(promql: str) -> set[str]:
    """Names of metrics: what is left without strings, labels, ranges, functions and keywords."""
    bare = re.sub(r"\"[^\"]*\"|\{[^}]*\}|\[[^\]]*\]", " ", promql)
    bare = re.sub(r"\b(by|on|without|ignoring|group_right|group_left)\s*\([^)]*\)", " ", bare)
    found = re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)
    return set(found) - NOT_NAMES


@dataclass(frozen=True)
class Fed:
    prometheus: PrometheusProcess
    client: Client
    webhooks: Path

    def alerts(self, *states: str) -> set[tuple[str, str]]:
        """(name, run) of alerts in one of the states."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("run", ""))
            for alert in self.prometheus.api("alerts")["alerts"]
            if alert["state"] in states
        }


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fed]:
    """A server that has told a run to stop, refused another, and knows a webhook that nobody answers; and a
    shard that has no run."""
    folder = tmp_path_factory.mktemp("fed")
    webhooks = folder / "webhooks.yaml"
    webhooks.write_text("- {name: nobody, format: slack, url: 'http://127.0.0.1:1/'}\n")
    config = ServerConfig(
        data=folder / "data", webhooks=webhooks, limits=Limits(runs=2), snapshot_minutes=1 / 60
    )
    with ExitStack() as closing:
        server = closing.enter_context(BackgroundServer(config))
        shard = closing.enter_context(lone_shard(folder / "shard"))
        targets = [server.http_address, shard.http_address]
        prometheus = closing.enter_context(PrometheusProcess(folder / "prometheus", targets, RULES))
        client = closing.enter_context(Client(server.grpc_address))
        prometheus.wait_scraped()
        run = closing.enter_context(RecordedRun(server.grpc_address, RUN, recorded("text_deferred_bS_s2")))
        while client.get_signal(RUN).action != signal_pb2.ACTION_STOP:
            run.play(2)
            prometheus.wait_scraped()
        ended = closing.enter_context(RecordedRun(server.grpc_address, "ended", made_up(3, 1)))
        ended.play()
        ended.finish()
        with pytest.raises(PathwatchError):
            client.create_run("one-more", run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)))
        prometheus.wait_scraped(3)
        yield Fed(prometheus, client, webhooks)


def recording() -> list[str]:
    (path,) = (path for path in RULES if path.stem == "recording")
    return [rule["record"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def within_a_minute(condition: Callable[[], Any]) -> None:
    """After a scrape that took too long nothing is known for a moment; rules are evaluated later."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.2)


def test_every_metric_that_rules_speak_of_is_published(fed: Fed) -> None:
    spoken = set()
    for rule in fed.prometheus.rules():
        spoken |= names_in(rule["query"])
    assert {"pathwatch_run_active", "up", "run:pathwatch_round_interval:seconds"} <= spoken
    assert unheard_of(fed, spoken) == set()


def test_queries_of_the_runbooks_are_about_what_is_published(fed: Fed) -> None:
    spoken = {
        name: page.stem
        for page in PAGES
        for name in re.findall(r"\b(?:\w+:)?pathwatch_\w+(?::\w+)?", page.read_text())
    }
    assert {name: spoken[name] for name in unheard_of(fed, set(spoken))} == {}


def unheard_of(fed: Fed, names: set[str]) -> set[str]:
    """What Prometheus does not know of by then: the first snapshot, and the first delivery that fails, take
    a moment."""
    deadline = time.monotonic() + 60
    while True:
        known = {*fed.prometheus.api("label/__name__/values"), *OF_PROMETHEUS, *recording()}
        if names <= known or time.monotonic() > deadline:
            return names - known
        time.sleep(0.5)


def test_every_rule_can_be_evaluated(fed: Fed) -> None:
    within_a_minute(lambda: all(rule["health"] != "unknown" for rule in fed.prometheus.rules()))
    assert {
        rule["name"]: rule.get("lastError") for rule in fed.prometheus.rules() if rule["health"] != "ok"
    } == {}


@pytest.mark.parametrize("name", [name for name in recording() if name != LOOKS_BACK_AN_HOUR])
def test_every_recording_rule_has_an_answer(fed: Fed, name: str) -> None:
    assert fed.prometheus.query(f'last_over_time({name}{{job="pathwatch"}}[10m])')


def test_groups_are_counted_as_the_service_says(fed: Fed) -> None:
    def told(query: str, label: str) -> dict[str, float]:
        return {one["metric"][label]: float(one["value"][1]) for one in fed.prometheus.query(query)}

    said: dict[str, int] = {}
    for status in fed.client.get_signal(RUN).groups:
        phase = signal_pb2.Phase.Name(status.phase).removeprefix("PHASE_")
        said[phase] = said.get(phase, 0) + 1
    since = {status.group: status.since_step for status in fed.client.get_signal(RUN).groups}
    within_a_minute(lambda: told(f'run:pathwatch_groups:count_by_phase{{run="{RUN}"}} > 0', "phase") == said)
    within_a_minute(
        lambda: told(f'group:pathwatch_phase_since_step:last_known{{run="{RUN}"}}', "group") == since
    )


def test_windows_come_as_often_as_they_were_sent(fed: Fed) -> None:
    """The trace has one every 20 steps, of which two come between scrapes."""
    intervals: list[float] = []

    def are_known() -> bool:
        found = fed.prometheus.query(f'group:pathwatch_window_interval:steps{{run="{RUN}"}}')
        intervals[:] = [float(one["value"][1]) for one in found]
        return len(intervals) == 4

    within_a_minute(are_known)
    assert all(20 <= interval <= 80 for interval in intervals), intervals


def test_a_stop_is_told_until_the_run_is_finished(fed: Fed) -> None:
    """And a file that cannot be read, at once."""
    within_a_minute(lambda: ("PathwatchStopAdvised", RUN) in fed.alerts("pending", "firing"))
    fed.webhooks.write_text("- {name: nobody, format: pigeon}\n")
    within_a_minute(lambda: ("PathwatchReloadFailing", "") in fed.alerts("firing"))
    fed.client.finish_run(RUN)
    # Silent, and not for want of data.
    within_a_minute(
        lambda: (
            not any(run for _, run in fed.alerts("pending", "firing"))
            and fed.prometheus.query(f'pathwatch_run_stop_at_step{{run="{RUN}"}}')
        )
    )
