"""Notifications of a real server: fed by a recorded run, its file changed under it, and stopped."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recorded_run import recorded
from webhook_receiver import WebhookReceiver

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.cli.playback import replay
from pathwatch.server.config import ServerConfig
from pathwatch.server.notify import notifier
from pathwatch.v1 import run_pb2, signal_pb2

Eventually = Callable[[Callable[[], Any]], Any]
SECRET = "0123456789abcdef-secret"  # noqa: S105
# Of examples/plugin: says LEARNING at the first window of a loss above its bound.
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), detector="loss-threshold")


class Set:
    """A server's file of webhooks, and its folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.file = folder / "webhooks.yaml"

    def write(self, *entries: dict[str, object]) -> None:
        common: dict[str, object] = {"format": "pathwatch", "rate": {"per_minute": 600}}
        self.put(yaml.safe_dump([common | entry for entry in entries]))

    def put(self, content: str) -> None:
        """In one go: a server that reads it at any time finds all of the former, or all of this."""
        new = self.file.with_name("new")
        new.write_text(content)
        new.chmod(0o600)
        new.replace(self.file)

    def server(self) -> BackgroundServer:
        return BackgroundServer(
            ServerConfig(data=self.data, webhooks=self.file, public_url="https://pathwatch.example")
        )

    def positions(self) -> set[str]:
        return {path.name for path in (self.data / "webhooks").iterdir()}


@pytest.fixture
def house(tmp_path: Path) -> Set:
    return Set(tmp_path)


@pytest.fixture
def receivers() -> Iterator[list[WebhookReceiver]]:
    running = [WebhookReceiver() for _ in range(3)]
    yield running
    for receiver in running:
        receiver.__exit__()


def learn(server: BackgroundServer, run: str, step: int = 1) -> None:
    """A group of a run, which is made where it is not there, comes to LEARNING."""
    with Client(server.grpc_address) as client:
        client.create_run(run, CONFIG)
    stream = RoutingStream(server.grpc_address, run=run)
    weights_NLK = np.full((40, 2, 4), 0.25, np.float32)
    stream.observe(step=step, group="math", sample_ids=np.arange(40), weights=weights_NLK, losses=np.ones(40))
    stream.watermark(step)
    assert stream.flush(60)
    stream.close()


def events(receiver: WebhookReceiver) -> list[dict[str, Any]]:
    return [event for document in receiver.documents() for event in document.get("events", [document])]


def heard(receiver: WebhookReceiver) -> list[tuple[str, str, str]]:
    return [(event["run"], event["kind"], event["after"]) for event in events(receiver)]


def scrape(server: BackgroundServer) -> str:
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=30) as page:
        text: str = page.read().decode()
    return text


def best(of: signal_pb2.Signal | signal_pb2.GroupStatus) -> int | None:
    return of.best_checkpoint_step if of.HasField("best_checkpoint_step") else None


def history(server: BackgroundServer, run: str) -> list[tuple[int, str | None, str]]:
    """What changed, as the server's own answers have it: revision, group (None = the run), and what it is."""
    with Client(server.grpc_address) as client:
        signals = list(client.get_metrics(run).signals)
    found: list[tuple[int, str | None, str]] = []
    for before, after in pairwise([signal_pb2.Signal(action=1), *signals]):
        if (before.action, before.stop_at_step) != (after.action, after.stop_at_step):
            found.append((after.revision, None, signal_pb2.Action.Name(after.action)[7:]))
        if best(before) != best(after):
            found.append((after.revision, None, str(best(after))))
        former = {status.group: status for status in before.groups}
        for status in after.groups:
            known = former.get(status.group, signal_pb2.GroupStatus(phase=1))
            if known.phase != status.phase:
                found.append((after.revision, status.group, signal_pb2.Phase.Name(status.phase)[6:]))
            if best(known) != best(status):
                found.append((after.revision, status.group, str(best(status))))
    return found


@pytest.mark.tools
def test_a_recorded_run_is_told_of_once_and_whole(
    house: Set, receivers: list[WebhookReceiver], eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    own, slack, alerts = receivers
    house.write(
        {"name": "own", "url": own.url, "secret": SECRET, "events": ["phase", "action", "checkpoint"]},
        {"name": "slack", "format": "slack", "url": slack.url},
        {"name": "alerts", "format": "alertmanager", "url": alerts.url},
    )
    with house.server() as server:
        trace = recorded("pair_s1")
        for _ in replay(trace, address=server.grpc_address, run="pair"):
            pass
        expected = history(server, "pair")
        assert len(expected) > 10
        eventually(lambda: len(events(own)) >= len(expected))
        assert [(event["revision"], event["group"], str(event["after"])) for event in events(own)] == expected
        assert len({event["id"] for event in events(own)}) == len(expected)
        final = {event["group"]: event["after"] for event in events(own) if event["kind"] == "phase"}
        # Each has its own courier, which need not be where that of the first is.
        phases = [f"{group} is {phase}" for group, phase in final.items()]
        eventually(lambda: all(phase in str(slack.documents()) for phase in phases))
        eventually(lambda: 'pathwatch_webhook_pending{webhook="slack"} 0.0' in scrape(server))
        assert all(message["blocks"] for message in slack.documents())

        def alerted() -> set[str]:
            return {
                alert["labels"].get("group", "")
                for document in alerts.documents()
                for alert in document
                if alert["labels"]["alertname"] == "PathwatchGroupGeneralized"
            }

        generalized = {group for group, phase in final.items() if phase == "GENERALIZED"}
        assert generalized
        eventually(lambda: alerted() >= generalized)
        assert alerted() == generalized

        def delivered() -> float:
            found = re.search(r'_deliveries_total{(?=.*"own")(?=.*"delivered").*} (\S+)', scrape(server))
            assert found is not None
            return float(found[1])

        # Counted, and taken off what waits, once the answer has come.
        eventually(lambda: delivered() == len(own.received))
        eventually(lambda: 'pathwatch_webhook_pending{webhook="own"} 0.0' in scrape(server))
        assert SECRET not in scrape(server)
    assert SECRET not in caplog.text
    assert all(received.headers["X-Pathwatch-Signature"] for received in own.received)


@pytest.mark.slow
def test_the_file_is_read_again(house: Set, receivers: list[WebhookReceiver], eventually: Eventually) -> None:
    first, second, third = receivers
    house.write({"name": "first", "url": first.url}, {"name": "goes", "url": second.url})
    with house.server() as server:
        learn(server, "a")
        eventually(lambda: first.received and second.received)
        house.write({"name": "first", "url": third.url, "runs": ["b*"]}, {"name": "new", "url": second.url})
        eventually(lambda: house.positions() == {"first.json", "new.json"})
        learn(server, "bb")
        eventually(lambda: third.received)
        eventually(lambda: len(second.received) == 2)
        assert heard(second) == [("a", "phase", "LEARNING"), ("bb", "phase", "LEARNING")]
        assert (len(first.received), heard(third)) == (1, [("bb", "phase", "LEARNING")])
        assert 'webhook="goes"' not in scrape(server)

        house.put("- name: first\n  format: none\n")
        eventually(lambda: 'pathwatch_reload_failures_total{file="webhooks"} 1.0' in scrape(server))
        learn(server, "bc")
        eventually(lambda: len(third.received) == 2)

        house.write({"name": "first", "url": first.url, "format": "alertmanager", "phases": ["LEARNING"]})
        eventually(lambda: len(first.received) == 2)
        assert {alert["labels"]["run"] for alert in first.documents()[1]} == {"a", "bb", "bc"}
        assert house.positions() == set()


@pytest.mark.slow
def test_a_receiver_that_hangs_holds_up_neither_others_nor_the_end(
    house: Set, receivers: list[WebhookReceiver], eventually: Eventually
) -> None:
    hangs, other, _ = receivers
    hangs.script = [hangs.hang] * 10
    house.write(
        {"name": "hangs", "url": hangs.url, "timeout_seconds": 60}, {"name": "other", "url": other.url}
    )
    server = house.server()
    server.__enter__()
    leaving = threading.Thread(target=server.__exit__, args=(None, None, None))
    try:
        learn(server, "a")
        eventually(lambda: hangs.received)
        learn(server, "b")
        eventually(lambda: len(other.received) == 2)
    finally:
        leaving.start()
    leaving.join(30)  # half of what the receiver has for its answer
    assert not leaving.is_alive()
    hangs.script = []
    with house.server() as server:
        eventually(lambda: len(events(hangs)) >= 3)
    assert len(other.received) == 2
    first, *again = events(hangs)
    assert [event["run"] for event in again] == ["a", "b"]
    assert first == again[0]


@pytest.mark.slow
def test_what_is_decided_last_is_told_before_the_end(
    house: Set, receivers: list[WebhookReceiver], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "DRAIN_SECONDS", 60.0)  # a busy machine may need more than it gives itself
    receiver = receivers[0]
    house.write({"name": "hook", "url": receiver.url})
    with house.server() as server:
        learn(server, "a")
        with Client(server.grpc_address) as client:
            eventually(lambda: client.get_signal("a").step == 1)
    assert heard(receiver) == [("a", "phase", "LEARNING")]


def test_files_of_webhooks_that_are_gone_go(house: Set, receivers: list[WebhookReceiver]) -> None:
    house.write({"name": "hook", "url": receivers[0].url})
    with house.server():
        assert house.positions() == {"hook.json"}
    house.write({"name": "other", "url": receivers[0].url})
    with house.server():
        assert house.positions() == {"other.json"}


def test_a_file_with_secrets_that_others_read_is_warned_of(
    house: Set, receivers: list[WebhookReceiver], caplog: pytest.LogCaptureFixture
) -> None:
    key = house.file.parent / "key"
    key.write_text(SECRET)
    key.chmod(0o644)
    house.write({"name": "hook", "url": receivers[0].url, "secret_file": "key"})
    house.file.chmod(0o644)
    with house.server():
        pass
    assert f"{key} can be read by all users" in caplog.text
    assert f"{house.file} can be read by all users" in caplog.text, "its url may be the secret"
    assert SECRET not in caplog.text
