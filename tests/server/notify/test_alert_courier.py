"""Alertmanager knows what holds: a real one, and one that a test holds in hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from alertmanager import AlertmanagerProcess
from told_runs import PATIENCE_SECONDS, ToldRuns
from webhook_receiver import WebhookReceiver, status

from pathwatch.server.config import Event, Format
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.notify.courier import Courier

Walk = Callable[[Courier], float | None]
WANTED = {
    "format": Format.ALERTMANAGER,
    "events": frozenset({Event.PHASE, Event.ACTION}),
    "phases": frozenset({"GENERALIZED", "REGRESSING"}),
}


@pytest.fixture
def courier(hire: Callable[..., Courier], receiver: WebhookReceiver) -> Courier:
    return hire(receiver.url.removesuffix("/hook"), **WANTED)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AlertmanagerProcess]:
    with AlertmanagerProcess(tmp_path_factory.mktemp("alertmanager") / "am") as running:
        yield running


def names(alerts: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted(
        (alert["labels"]["run"], alert["labels"].get("group", ""), alert["labels"]["alertname"])
        for alert in alerts
    )


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_real_alertmanager_shows_what_holds(
    runs: ToldRuns, hire: Callable[..., Courier], walk: Walk, alertmanager: AlertmanagerProcess
) -> None:
    runs.wall = time.time() - 60
    courier = hire(alertmanager.url, **WANTED)
    walk(courier)
    assert alertmanager.alerts() == []
    since = runs.wall + 1
    runs.say("a", "STOP", best=7, reason='it "generalized" <b>', math="GENERALIZED", code="LEARNING")
    runs.say("b", "CHECKPOINT", **{"mä th": "REGRESSING"})
    runs.wall = time.time()
    walk(courier)
    alerts = alertmanager.alerts()
    assert names(alerts) == [
        ("a", "", "PathwatchStopAdvised"),
        ("a", "math", "PathwatchGroupGeneralized"),
        ("b", "", "PathwatchCheckpointAdvised"),
        ("b", "mä th", "PathwatchGroupRegressing"),
    ]
    stop = next(alert for alert in alerts if alert["labels"]["alertname"] == "PathwatchStopAdvised")
    assert stop["labels"] == {"alertname": "PathwatchStopAdvised", "run": "a", "severity": "warning"}
    assert stop["annotations"] == {
        "summary": "a is advised to STOP at step 15",
        "description": 'it "generalized" <b> The best checkpoint is that of step 7.',
    }
    assert stop["generatorURL"] == "https://pathwatch.example/ui/#/runs/a"
    assert stop["status"]["state"] == "active"
    assert seconds(stop["startsAt"]) >= since
    assert seconds(stop["endsAt"]) == pytest.approx(runs.wall + 240, abs=0.01), "by itself, should we die"

    runs.pass_time(60)
    runs.wall = time.time()
    walk(courier)
    again = next(a for a in alertmanager.alerts() if a["labels"] == stop["labels"])
    assert seconds(again["endsAt"]) > seconds(stop["endsAt"])
    assert again["startsAt"] == stop["startsAt"]

    runs.say("a", math="GENERALIZED", code="REGRESSING")
    runs.say("b", **{"mä th": "LEARNING"})
    runs.wall = time.time()
    walk(courier)
    assert names(alertmanager.alerts()) == [
        ("a", "code", "PathwatchGroupRegressing"),
        ("a", "math", "PathwatchGroupGeneralized"),
    ]
    runs.finish("a")
    walk(courier)
    assert alertmanager.alerts() == [], "a finished run needs nobody"


def test_what_ends_is_said_once_and_what_lasts_every_minute(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, walk: Walk
) -> None:
    assert walk(courier) == 60, "what turns stale is told by nobody"
    assert receiver.received == []
    runs.say("a", "STOP", math="GENERALIZED")
    began = runs.wall
    assert walk(courier) == 60
    assert receiver.received[0].path == "/api/v2/alerts"
    runs.pass_time(59)
    assert walk(courier) == 1
    assert len(receiver.received) == 1
    runs.pass_time(1)
    runs.say("b")
    walk(courier)
    first, again = receiver.documents()
    assert [alert["startsAt"] for alert in again] == [alert["startsAt"] for alert in first]
    assert seconds(again[0]["startsAt"]) == began
    runs.say("a", math="GENERALIZED")
    walk(courier)
    ended, lasts = sorted(receiver.documents()[2], key=lambda alert: str(alert["endsAt"]))
    assert ended["labels"]["alertname"] == "PathwatchStopAdvised"
    assert seconds(ended["endsAt"]) == runs.wall
    assert seconds(lasts["endsAt"]) == runs.wall + 240
    runs.pass_time(60)
    walk(courier)
    assert [alert["labels"]["alertname"] for alert in receiver.documents()[3]] == [
        "PathwatchGroupGeneralized"
    ]
    runs.delete("a")
    walk(courier)
    (gone,) = receiver.documents()[4]
    assert seconds(gone["endsAt"]) == runs.wall
    runs.pass_time(60)
    assert walk(courier) == 60
    assert len(receiver.received) == 5


def test_who_is_abandoned_says_no_more(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, counts: DeliveryCounts
) -> None:
    runs.say("a", **{f"g{number}": "GENERALIZED" for number in range(450)})

    def taken_out_meanwhile(handler: BaseHTTPRequestHandler) -> None:
        courier.abandon()
        counts.forget("hook")
        status(200)(handler)

    receiver.script = [taken_out_meanwhile]
    courier.step()
    assert len(receiver.documents()[0]) == 200
    assert len(receiver.received) == 1
    assert counts.pending == counts.deliveries == {}


def test_an_alert_whose_words_change_is_the_same_alert(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, walk: Walk
) -> None:
    runs.say("a", "STOP", reason="one group of two")
    walk(courier)
    runs.pass_time(20)
    runs.say("a", "STOP", reason="two groups of two")
    walk(courier)
    (first,), (second,) = receiver.documents()
    assert (first["annotations"]["summary"], second["annotations"]["summary"]) == (
        "a is advised to STOP at step 15",
        "a is advised to STOP at step 25",
    )
    assert second["annotations"]["description"] == "two groups of two"
    assert (first["labels"], first["startsAt"]) == (second["labels"], second["startsAt"])


def test_an_alertmanager_that_was_away_is_told_of_what_holds_now(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, walk: Walk, counts: DeliveryCounts
) -> None:
    receiver.script = [status(503)]
    runs.say("a", math="GENERALIZED")
    wait = walk(courier)
    assert wait is not None
    assert wait <= 1
    assert counts.pending == {"hook": 1}
    runs.say("a", math="REGRESSING")
    assert walk(courier) == pytest.approx(wait), "news do not hurry a receiver that is away"
    runs.pass_time(wait)
    walk(courier)
    alerts = {alert["labels"]["alertname"]: alert for alert in receiver.documents()[1]}
    assert seconds(alerts["PathwatchGroupGeneralized"]["endsAt"]) <= runs.wall
    assert seconds(alerts["PathwatchGroupRegressing"]["endsAt"]) > runs.wall
    assert counts.pending == {"hook": 0}
    assert counts.deliveries["hook", "failed"] == 1


def test_an_alertmanager_that_refuses_is_asked_again_in_a_minute(
    runs: ToldRuns,
    receiver: WebhookReceiver,
    courier: Courier,
    walk: Walk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.script = [status(400, b'"invalid label"')] * 2
    runs.say("a", math="GENERALIZED")
    assert walk(courier) == 60
    runs.pass_time(60)
    assert walk(courier) == 60
    runs.pass_time(60)
    assert walk(courier) == 60
    assert len(receiver.received) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "webhook 'hook' refuses what it is sent: it answered 400: \"invalid label\"",
        "webhook 'hook' is reached again after 2 attempts in vain, in 120 s",
    ]


def test_a_run_without_data_alerts_of_nothing_but_its_stop(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, walk: Walk
) -> None:
    runs.say("a", math="GENERALIZED")
    runs.say("b", "STOP", math="GENERALIZED")
    walk(courier)
    runs.pass_time(PATIENCE_SECONDS + 60)
    walk(courier)
    runs.pass_time(60)
    walk(courier)
    assert names(receiver.documents()[-1]) == [
        ("b", "", "PathwatchStopAdvised"),
        ("b", "math", "PathwatchGroupGeneralized"),
    ]


def test_many_alerts_go_in_pieces(
    runs: ToldRuns, receiver: WebhookReceiver, courier: Courier, walk: Walk
) -> None:
    groups = {f"g{number:03}": "GENERALIZED" for number in range(90)}
    for run in ("a", "b", "c", "d", "e"):
        runs.say(run, **groups)
    walk(courier)
    assert [len(alerts) for alerts in receiver.documents()] == [200, 200, 50]
    assert len({str(alert["labels"]) for alerts in receiver.documents() for alert in alerts}) == 450
    assert all(alert["labels"]["severity"] == "info" for alert in receiver.documents()[0])


def test_a_storm_of_changes_is_held_to_the_rate(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Callable[..., Courier], walk: Walk
) -> None:
    courier = hire(receiver.url, **WANTED, per_minute=6)
    for number in range(50):
        runs.say("a", math="GENERALIZED" if number % 2 else "REGRESSING")
        walk(courier)
    assert len(receiver.received) == 5
    runs.pass_time(10.01)
    walk(courier)
    lasting = [
        alert["labels"]["alertname"]
        for alert in receiver.documents()[-1]
        if seconds(alert["endsAt"]) > runs.wall
    ]
    assert lasting == ["PathwatchGroupGeneralized"]


def test_an_address_below_a_prefix(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Callable[..., Courier], walk: Walk
) -> None:
    runs.say("a", math="GENERALIZED")
    for path in ("/am/", "/am/api/v2/alerts"):
        walk(hire(receiver.url.replace("/hook", path), **WANTED))
    assert [received.path for received in receiver.received] == ["/am/api/v2/alerts"] * 2
