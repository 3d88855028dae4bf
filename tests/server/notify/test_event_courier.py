"""A webhook hears of every change: once when all is well, again with the same id when it is not."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from told_runs import ToldRuns
from webhook_receiver import WebhookReceiver, huge, reset, status

from pathwatch.server.config import Event, Secret
from pathwatch.server.notify import event_courier
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.notify.courier import Courier
from pathwatch.server.notify.positions import FOLDER, Positions
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import DeleteRun

Hire = Callable[..., Courier]
Walk = Callable[[Courier], float | None]


def told(receiver: WebhookReceiver) -> list[tuple[str, int, str, Any]]:
    """Every event that came: run, revision, kind, what it is now."""
    return [
        (event["run"], event["revision"], event["kind"], event["after"])
        for document in receiver.documents()
        for event in document.get("events", [document])
    ]


def ids(receiver: WebhookReceiver) -> list[str]:
    return [event["id"] for document in receiver.documents() for event in document.get("events", [document])]


def result(counts: DeliveryCounts, name: str) -> int:
    return counts.deliveries["hook", name]


def test_every_change_once_and_in_order(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, counts: DeliveryCounts
) -> None:
    courier = hire(receiver.url)
    runs.say("a")
    runs.say("a", math="MEMORIZED")
    runs.say("b", "CHECKPOINT", best=10, code="LEARNING")
    runs.say("a", "STOP", best=20, math="GENERALIZED")
    runs.say("b", best=10, code="LEARNING")
    assert walk(courier) == pytest.approx(0.1, abs=0.01), "five at once are enough"
    assert len(receiver.received) == 5
    runs.pass_time(0.11)
    assert walk(courier) is None
    assert told(receiver) == [
        ("a", 2, "phase", "MEMORIZED"),
        ("a", 3, "action", "STOP"),
        ("a", 3, "checkpoint", 20),
        ("a", 3, "phase", "GENERALIZED"),
        ("b", 1, "action", "CHECKPOINT"),
        ("b", 1, "checkpoint", 10),
        ("b", 1, "phase", "LEARNING"),
        ("b", 2, "action", "CONTINUE"),
    ]
    assert len(set(ids(receiver))) == 8
    assert walk(courier) is None
    assert len(receiver.received) == 6
    assert result(counts, "delivered") == 6
    assert counts.pending == {"hook": 0}


def test_what_a_document_says(runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk) -> None:
    courier = hire(receiver.url)
    runs.say("a/b?")
    runs.say("a/b?", "STOP", best=20, reason="all groups", mäth="GENERALIZED")
    walk(courier)
    action, best, phase = receiver.documents()
    assert action == {
        "version": 1,
        "id": action["id"],
        "kind": "action",
        "run": "a/b?",
        "group": None,
        "before": "CONTINUE",
        "after": "STOP",
        "step": 20,
        "revision": 2,
        "at": "2023-11-14T22:13:22.000Z",
        "reason": "all groups",
        "evidence": {},
        "stop_at_step": 25,
        "best_checkpoint_step": 20,
        "links": {"run": "https://pathwatch.example/ui/#/runs/a%2Fb%3F"},
    }
    assert (best["kind"], best["before"], best["after"]) == ("checkpoint", None, 20)
    assert (phase["group"], phase["before"], phase["evidence"]) == ("mäth", "UNKNOWN", {"drop": 0.25})
    assert receiver.received[0].headers["Content-Type"] == "application/json"


@pytest.mark.slow
@pytest.mark.parametrize("bad", [status(500), status(429), status(408), reset, huge, "hang"])
def test_what_fails_comes_again_with_the_same_bytes(
    bad: Any,
    runs: ToldRuns,
    receiver: WebhookReceiver,
    hire: Hire,
    walk: Walk,
    counts: DeliveryCounts,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.script = [receiver.hang if bad == "hang" else bad] * 2
    courier = hire(receiver.url, timeout_seconds=0.5 if bad == "hang" else 60)
    runs.say("a")
    runs.say("a", math="LEARNING")
    runs.say("a", math="MEMORIZED")
    waits = []
    for _ in range(2):
        wait = walk(courier)
        assert wait
        waits.append(wait)
        assert walk(courier) == wait, "nothing happens before its time"
        # Who is not waited for may not have read it yet.
        eventually(lambda: len(receiver.received) >= len(waits))
        assert len(receiver.received) == len(waits)
        runs.pass_time(wait)
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    assert ("no answer within 0.5 s" in caplog.text) == (bad == "hang")
    assert ("the connection was cut" in caplog.text) == (bad is reset)
    courier.configure(replace(courier.webhook, timeout_seconds=60))  # from now on it answers
    assert walk(courier) is None
    bodies = [received.body for received in receiver.received]
    assert bodies[0] == bodies[1] == bodies[2] != bodies[3]
    assert told(receiver)[2:] == [("a", 2, "phase", "LEARNING"), ("a", 3, "phase", "MEMORIZED")]
    assert [result(counts, name) for name in ("delivered", "failed", "dropped")] == [2, 2, 0]


def test_a_receiver_that_is_away_is_tried_ever_more_seldom(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.stop()
    courier = hire(receiver.url)
    runs.say("a")
    runs.say("a", math="LEARNING")
    waits = []
    for _ in range(12):
        wait = walk(courier)
        assert wait is not None
        waits.append(wait)
        runs.pass_time(wait)
    assert 150 <= max(waits) <= 300
    assert all(wait >= 150 for wait in waits[-2:])
    receiver.start()
    assert walk(courier) is None
    assert len(receiver.received) == 1
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "webhook 'hook' cannot be reached, and is tried again until it can: no connection: refused or "
        "unreachable",
        f"webhook 'hook' is reached again after 12 attempts in vain, in {sum(waits):.0f} s",
    ]


def test_a_receiver_that_asks_for_time_gets_it(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    receiver.script = [status(429, Retry_After="120"), status(503, Retry_After="90000"), status(503)]
    courier = hire(receiver.url)
    runs.say("a")
    runs.say("a", math="LEARNING")
    assert walk(courier) == 120
    runs.pass_time(120)
    assert walk(courier) == 3600, "for ever is too long"
    runs.pass_time(3600)
    assert (walk(courier) or 0) <= 4


@pytest.mark.parametrize("code", [301, 307, 400, 401, 404, 410])
def test_what_is_refused_is_given_up_and_said(
    code: int,
    runs: ToldRuns,
    receiver: WebhookReceiver,
    hire: Hire,
    walk: Walk,
    counts: DeliveryCounts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with WebhookReceiver() as elsewhere:
        receiver.script = [status(code, b"no \x1b[31mway", Location=elsewhere.url)]
        courier = hire(receiver.url)
        runs.say("a")
        runs.say("a", math="LEARNING")
        runs.say("a", math="MEMORIZED")
        assert walk(courier) is None
        assert elsewhere.received == []
    assert told(receiver) == [("a", 2, "phase", "LEARNING"), ("a", 3, "phase", "MEMORIZED")]
    assert [result(counts, name) for name in ("delivered", "failed", "dropped")] == [1, 1, 1]
    (given_up,) = [record for record in caplog.records if record.levelname == "ERROR"]
    why = "redirects are not followed; give the new address as its url" if code < 400 else "no  [31mway"
    assert given_up.getMessage() == (
        f"webhook 'hook': given up: phase of revision 2 of run 'a'; it answered {code}: {why}"
    )


def test_after_some_hours_it_is_given_up(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, counts: DeliveryCounts
) -> None:
    receiver.stop()
    courier = hire(receiver.url, give_up_hours=2)
    runs.say("a")
    runs.say("a", math="LEARNING")
    walk(courier)
    runs.pass_time(7199)
    runs.say("a", math="MEMORIZED")
    wait = walk(courier)
    assert result(counts, "dropped") == 0
    runs.pass_time(max(wait or 0, 1))
    walk(courier)
    assert result(counts, "dropped") == 1
    receiver.start()
    runs.pass_time(600)
    walk(courier)
    assert told(receiver) == [("a", 3, "phase", "MEMORIZED")], "what came later has its own two hours"


def test_what_is_over_the_rate_is_joined_and_nothing_is_lost(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    courier = hire(receiver.url, per_minute=6)
    runs.say("a")
    for number in range(1, 251):
        runs.say("a", math="LEARNING" if number % 2 else "MEMORIZED")
    wait = walk(courier)
    assert wait == pytest.approx(10, abs=0.1)
    assert [len(document.get("events", [0])) for document in receiver.documents()] == [1] * 5
    assert walk(courier) == wait
    assert len(receiver.received) == 5, "time has not passed"
    runs.say("b", code="LEARNING")
    for _ in range(5):
        runs.pass_time(10.01)
        walk(courier)
    sizes = [len(document.get("events", [0])) for document in receiver.documents()]
    assert sizes == [1] * 5 + [100, 100, 46]
    assert [revision for run, revision, *_ in told(receiver) if run == "a"] == list(range(2, 252))
    assert told(receiver)[-1] == ("b", 1, "phase", "LEARNING")
    assert len(set(ids(receiver))) == 251
    summary = receiver.documents()[5]
    assert summary.keys() == {"version", "id", "kind", "events"}
    assert summary["kind"] == "summary"
    runs.say("a", math="LEARNING")
    walk(courier)
    assert "events" not in receiver.documents()[-1], "within the rate, each has its own again"


def test_a_restart_goes_on_where_it_was(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    first = hire(receiver.url)
    runs.say("a")
    runs.say("a", math="LEARNING", code="LEARNING")
    first.step()  # of the two, one
    assert told(receiver) == [("a", 2, "phase", "LEARNING")]
    runs.say("a", "CHECKPOINT", math="LEARNING", code="MEMORIZED")
    runs.say("new", math="LEARNING")
    walk(hire(receiver.url))
    assert told(receiver)[1:] == [
        ("a", 2, "phase", "LEARNING"),
        ("a", 3, "action", "CHECKPOINT"),
        ("a", 3, "phase", "MEMORIZED"),
        ("new", 1, "phase", "LEARNING"),
    ]
    assert len(set(ids(receiver))) == 5


def test_a_death_before_it_was_remembered_tells_again_with_the_same_id(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    first = hire(receiver.url)
    runs.say("a")
    runs.say("a", math="LEARNING")
    (file,) = (runs.data / FOLDER).iterdir()
    before = file.read_bytes()
    walk(first)
    file.write_bytes(before)
    walk(hire(receiver.url))
    assert len(receiver.received) == 2
    assert receiver.received[0].body == receiver.received[1].body


def test_a_webhook_that_is_new_hears_of_what_changes_from_now_on(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    runs.say("a", math="LEARNING")
    hire(receiver.url)  # dies at once: now was then
    runs.say("a", math="MEMORIZED")
    walk(hire(receiver.url))
    assert told(receiver) == [("a", 2, "phase", "MEMORIZED")]


def test_what_another_server_has_told_of_is_not_told_again(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    """A run that was here before, and one that was not; a restart changes nothing."""
    courier = hire(receiver.url)
    runs.say("here", math="LEARNING")
    walk(courier)
    runs.inherited = {"here": 3, "new": 2}
    for run in ("here", "new"):
        for phase in ("MEMORIZED", "GENERALIZED", "OVERFITTING"):
            runs.say(run, math=phase)
    courier.finish()
    walk(hire(receiver.url))
    assert told(receiver) == [
        ("here", 1, "phase", "LEARNING"),
        ("here", 4, "phase", "OVERFITTING"),
        ("new", 3, "phase", "OVERFITTING"),
    ]


def test_a_run_that_is_made_anew_is_another_run(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    courier = hire(receiver.url)
    for phase in ("LEARNING", "MEMORIZED"):
        runs.say("a", math=phase)
    walk(courier)
    runs.delete("a")
    for phase in ("LEARNING", "MEMORIZED", "LEARNING"):
        runs.say("a", math=phase)
    walk(courier)
    assert [revision for _, revision, *_ in told(receiver)] == [1, 2, 1, 2, 3]
    assert len(set(ids(receiver))) == 5
    runs.delete("a")
    for phase in ("LEARNING", "MEMORIZED", "LEARNING", "GENERALIZING"):
        runs.say("a", math=phase)
    walk(hire(receiver.url))
    assert [revision for _, revision, *_ in told(receiver)][5:] == [1, 2, 3, 4], "nor after a restart"


def test_an_older_snapshot_that_was_put_back(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    courier = hire(receiver.url)
    for phase in ("LEARNING", "MEMORIZED", "GENERALIZING"):
        runs.say("a", math=phase)
    walk(courier)
    runs.put_back("a", 1)
    courier = hire(receiver.url)
    walk(courier)
    assert len(receiver.received) == 3
    runs.say("a", math="REGRESSING")
    walk(courier)
    assert told(receiver)[3:] == [("a", 2, "phase", "REGRESSING")]
    assert len(set(ids(receiver))) == 4, "it is not the revision 2 that was told before"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 2, "runs": {}}', b'{"version": 1}', b"\xff"]
)
def test_a_damaged_file_is_said_and_begins_with_now(
    content: bytes,
    runs: ToldRuns,
    receiver: WebhookReceiver,
    hire: Hire,
    walk: Walk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hire(receiver.url)
    runs.say("a", math="LEARNING")
    (file,) = (runs.data / FOLDER).iterdir()
    file.write_bytes(content)
    courier = hire(receiver.url)
    assert "hook.json cannot be used" in caplog.text
    runs.say("a", math="MEMORIZED")
    walk(courier)
    assert told(receiver) == [("a", 2, "phase", "MEMORIZED")]


def test_a_disk_that_takes_nothing_holds_nothing_up(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, caplog: pytest.LogCaptureFixture
) -> None:
    courier = hire(receiver.url)
    (file,) = (runs.data / FOLDER).iterdir()
    part = file.with_suffix(".part")
    part.mkdir()
    for phase in ("LEARNING", "MEMORIZED"):
        runs.say("a", math=phase)
    assert walk(courier) is None
    assert len(receiver.received) == 2
    assert caplog.text.count("cannot be written") == 1
    part.rmdir()
    runs.say("a", math="LEARNING")
    walk(courier)
    walk(hire(receiver.url))
    assert len(receiver.received) == 3
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_store_that_cannot_be_read_for_a_while(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = hire(receiver.url)
    runs.say("a", math="LEARNING")

    def fails(*_: object, **__: object) -> None:
        raise StoreError("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(runs.store, "signals", fails)
        assert walk(courier) == 1.0
    assert walk(courier) is None
    assert len(receiver.received) == 1


@pytest.mark.parametrize("told_before", [False, True])
def test_a_run_that_is_being_deleted_is_looked_at_again(
    told_before: bool, runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    courier = hire(receiver.url)
    runs.say("a", math="LEARNING")
    if told_before:
        walk(courier)
        runs.say("a", math="MEMORIZED")
    runs.store.commit([DeleteRun(run="a")])  # and those who look on do not know it yet
    assert walk(courier) == 1.0
    runs.delete("a")
    assert walk(courier) is None
    assert len(receiver.received) == told_before


@pytest.mark.parametrize(
    ("wanted", "heard"),
    [
        ({"events": frozenset({Event.ACTION})}, [("ab", "STOP"), ("cd", "STOP")]),
        (
            {"events": frozenset({Event.PHASE}), "phases": frozenset({"MEMORIZED"})},
            [("ab", "MEMORIZED"), ("cd", "MEMORIZED")],
        ),
        ({"events": frozenset({Event.CHECKPOINT})}, [("ab", 7), ("cd", 7)]),
        ({"runs": ("x", "a*")}, [("ab", "LEARNING"), ("ab", "STOP"), ("ab", 7), ("ab", "MEMORIZED")]),
        ({"groups": ("co*",)}, [("ab", "STOP"), ("ab", 7), ("cd", "STOP"), ("cd", 7)]),
    ],
)
def test_only_what_is_wanted(
    wanted: dict[str, Any],
    heard: list[tuple[str, Any]],
    runs: ToldRuns,
    receiver: WebhookReceiver,
    hire: Hire,
    walk: Walk,
) -> None:
    courier = hire(receiver.url, **wanted)
    for run in ("ab", "cd"):
        runs.say(run, math="LEARNING")
        runs.say(run, "STOP", best=7, math="MEMORIZED")
    walk(courier)
    runs.pass_time(60)
    walk(courier)
    assert [(run, after) for run, _, _, after in told(receiver)] == heard


def test_what_waits_is_not_told_once_it_is_not_wanted_any_more(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, counts: DeliveryCounts
) -> None:
    receiver.stop()
    courier = hire(receiver.url)
    for phase in ("LEARNING", "MEMORIZED"):
        runs.say("a", math=phase, code=phase)
        runs.say("b", math=phase)
    walk(courier)
    assert counts.pending == {"hook": 6}
    courier.configure(replace(courier.webhook, runs=("a",), groups=("code",)))
    wait = walk(courier)
    assert counts.pending == {"hook": 2}
    receiver.start()
    runs.pass_time(wait or 0)
    walk(courier)
    assert told(receiver) == [("a", 1, "phase", "LEARNING"), ("a", 2, "phase", "MEMORIZED")]
    assert [document["group"] for document in receiver.documents()] == ["code", "code"]
    courier.finish()
    walk(hire(receiver.url))
    assert len(receiver.received) == 2, "nor after a restart, with everything wanted"


def test_what_was_not_wanted_is_not_told_later(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk
) -> None:
    courier = hire(receiver.url, runs=("other",))
    runs.say("a", math="LEARNING")
    walk(courier)
    courier.finish()
    walk(hire(receiver.url))
    assert receiver.received == []


@pytest.mark.slow
def test_little_is_held_of_a_long_backlog(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, counts: DeliveryCounts
) -> None:
    courier = hire(receiver.url)
    receiver.stop()
    for number in range(1500):
        runs.say("a", math="LEARNING" if number % 2 else "MEMORIZED")
    wait = walk(courier)
    assert 1000 <= counts.pending["hook"] < 1200
    receiver.start()
    runs.pass_time(wait or 0)
    while counts.pending["hook"]:
        walk(courier)
        runs.pass_time(0.2)
    assert [revision for _, revision, *_ in told(receiver)] == list(range(1, 1501))


def test_another_address_is_taken_up_at_once(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, tmp_path: Path
) -> None:
    courier = hire("http://127.0.0.1:9/gone")
    runs.say("a", math="LEARNING")
    assert walk(courier)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n")
    courier.configure(replace(courier.webhook, url=Secret(receiver.url), secret=Secret(file=secret)))
    assert walk(courier) is None
    assert told(receiver) == [("a", 1, "phase", "LEARNING")]
    assert "X-Pathwatch-Signature" in receiver.received[0].headers


def test_a_secret_that_cannot_be_read_is_waited_for(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, tmp_path: Path
) -> None:
    courier = hire(receiver.url, headers=(("Authorization", Secret(file=tmp_path / "token")),))
    runs.say("a", math="LEARNING")
    wait = walk(courier)
    assert receiver.received == []
    (tmp_path / "token").write_text("Bearer of news\n")
    runs.pass_time(wait or 0)
    walk(courier)
    assert receiver.received[0].headers["Authorization"] == "Bearer of news"


def test_secrets_are_not_in_the_log(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    url = receiver.url.replace("/hook", "/services/T0/B0/slackslack?key=query&token=sl%2Fash%20token")
    echo = b"no such /services/T0/B0/slackslack at " + url.encode() + b", Bearer topsecret"
    spelled = (
        b"POST /services/T0/B0/slackslack?key=query&token=sl%2fash%20token, key=query token=sl/ash token "
        rb'sl%2Fash+token {"at":"\/services\/T0\/B0\/slackslack"}, topsecret'
    )
    receiver.script = [status(404, echo), status(404, spelled), status(500, echo), reset]
    courier = hire(
        url,
        headers=(("Authorization", Secret("Bearer topsecret")),),
        secret=Secret("signing-signing-signing"),
    )
    for phase in ("LEARNING", "MEMORIZED", "GENERALIZING", "GENERALIZED"):
        runs.say("a", math=phase)
    for _ in range(5):
        runs.pass_time(walk(courier) or 0)
    assert len(receiver.received) == 6
    assert "no such … at …, …" in caplog.text
    assert 'POST …?…, key=… token=… … {"at":"…"}, …' in caplog.text
    for secret in ("topsecret", "slackslack", "signing", "query", "ash"):
        assert secret not in caplog.text
        assert secret not in repr(courier.webhook)


def test_who_is_taken_out_as_it_has_delivered_remembers_nothing(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the name, given to a webhook again, would be told of what came while there was none."""
    courier = hire(receiver.url)
    runs.say("a", math="LEARNING")

    def taken_out(_: str) -> None:
        courier.dismiss()
        Positions(runs.data, "hook").remove()

    monkeypatch.setattr(event_courier, "reach", taken_out)
    courier.step()
    assert told(receiver) == [("a", 1, "phase", "LEARNING")]
    assert list((runs.data / FOLDER).iterdir()) == []


def test_a_proxy_is_gone_through(runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk) -> None:
    proxy = receiver.url.replace("http://", "http://user:w%40rd@").removesuffix("/hook")
    courier = hire("http://receiver.invalid/hook", proxy=Secret(proxy))
    runs.say("a", math="LEARNING")
    walk(courier)
    assert receiver.received[0].path == "http://receiver.invalid/hook"
    assert receiver.received[0].headers["Proxy-Authorization"] == f"Basic {b64encode(b'user:w@rd').decode()}"


def test_a_proxy_of_the_environment_is_not(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    courier = hire(receiver.url)
    runs.say("a", math="LEARNING")
    walk(courier)
    assert receiver.received[0].path == "/hook"


def test_a_thread_does_all_that(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, eventually: Callable[..., Any]
) -> None:
    courier = hire(receiver.url)
    others = set(threading.enumerate())  # of the test before, one may be about to end
    courier.start()
    runs.say("a", math="LEARNING")
    eventually(lambda: len(receiver.received) == 1)
    runs.say("a", math="MEMORIZED")
    courier.close()
    courier.join(60)
    left = {thread.name for thread in threading.enumerate() if thread not in others}
    assert "pathwatch-webhook-hook" not in left
    assert len(receiver.received) == 2, "what can be delivered before the end is"


def test_an_end_that_is_asked_for_as_it_wakes_is_not_slept_through(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = hire(receiver.url, runs=("other",))

    class Wake(threading.Event):
        def clear(self) -> None:
            courier.close()
            super().clear()

    monkeypatch.setattr(courier, "_wake", Wake())
    runs.say("a", math="LEARNING")
    courier.start()
    courier.join(60)
    walk(hire(receiver.url))
    assert receiver.received == [], "what it had not wanted is remembered"


def test_a_hung_receiver_does_not_hold_up_the_end(
    runs: ToldRuns, receiver: WebhookReceiver, hire: Hire, walk: Walk, eventually: Callable[..., Any]
) -> None:
    receiver.script = [receiver.hang]
    courier = hire(receiver.url, timeout_seconds=30)
    courier.start()
    runs.say("a", math="LEARNING")
    eventually(lambda: receiver.received)
    courier.close()
    ended = threading.Event()
    threading.Thread(target=lambda: (courier.join(0.1), ended.set())).start()
    assert ended.wait(60)
    (file,) = (runs.data / FOLDER).iterdir()
    assert json.loads(file.read_bytes())["runs"] == {}, "it is not taken for delivered"
    walk(hire(receiver.url))
    assert len(set(ids(receiver))) == 1
    assert len(receiver.received) == 2
