"""kill -9 while webhooks are told: every change arrives, what arrives twice has the same id."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from serving import Serving, wait
from webhook_receiver import WebhookReceiver, status

from pathwatch.client import Client, RoutingStream
from pathwatch.server.failpoints import VARIABLE
from pathwatch.v1 import run_pb2, signal_pb2

# Of examples/plugin: phases follow the loss, window by window.
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), detector="loss-threshold")
GROUPS = ("code", "math")


def send(address: str, step: int, loss: float) -> RoutingStream:
    """A probe of two groups, on its way."""
    stream = RoutingStream(address, run="run")
    for group in GROUPS:
        stream.observe(
            step=step,
            group=group,
            sample_ids=np.arange(40),
            weights=np.full((40, 2, 4), 0.25, np.float32),
            losses=np.full(40, loss, np.float32),
        )
    stream.watermark(step)
    return stream


def learn(address: str, step: int, loss: float) -> None:
    """One probe, judged when it returns."""
    stream = send(address, step, loss)
    assert stream.flush(60)
    stream.close()
    with Client(address) as client:
        wait(lambda: client.get_signal("run").step >= step)


def said(address: str) -> list[tuple[int, str, str]]:
    """What the server's own history says changed: revision, group ("" = the run) and what it is then."""
    with Client(address) as client:
        signals = list(client.get_metrics("run").signals)
    changes = []
    for before, after in pairwise([signal_pb2.Signal(action=1), *signals]):
        if before.action != after.action:
            changes.append((after.revision, "", signal_pb2.Action.Name(after.action)))
        former = {status.group: status.phase for status in before.groups}
        changes += [
            (after.revision, status.group, signal_pb2.Phase.Name(status.phase))
            for status in after.groups
            if status.phase != former.get(status.group, signal_pb2.PHASE_UNKNOWN)
        ]
    return changes


def events(receiver: WebhookReceiver) -> Iterator[dict[str, Any]]:
    for document in receiver.documents():
        yield from document.get("events", [document])


def heard(receiver: WebhookReceiver) -> list[tuple[int, str, str]]:
    """The same of what came, each id once."""
    by_id = {event["id"]: event for event in events(receiver)}
    prefix = {"action": "ACTION_", "phase": "PHASE_"}
    return [
        (event["revision"], event["group"] or "", prefix[event["kind"]] + event["after"])
        for event in by_id.values()
    ]


@pytest.mark.robustness
def test_a_server_killed_again_and_again_tells_everything(tmp_path: Path) -> None:
    with WebhookReceiver() as receiver:
        file = tmp_path / "webhooks.yaml"
        file.write_text(
            yaml.safe_dump(
                [{"name": "hook", "format": "pathwatch", "url": receiver.url, "rate": {"per_minute": 600}}]
            )
        )
        data, log = tmp_path / "data", tmp_path / "log"

        def serve(armed: str = "") -> Serving:
            return Serving(data, log, "--webhooks", str(file), environment={VARIABLE: armed})

        server = serve("webhook.delivered=kill@1")
        with Client(server.address) as client:
            client.create_run("run", CONFIG)
        stream = send(server.address, 10, 1.0)
        assert server.process.wait(60) == -signal.SIGKILL
        stream.close(timeout=0)
        server.kill()
        assert len(receiver.received) == 1

        server = serve("webhook.delivered=kill@2")  # what was delivered and not remembered, and one more
        assert server.process.wait(60) == -signal.SIGKILL
        server.kill()
        assert len({received.body for received in receiver.received[:2]}) == 1

        receiver.stop()
        server = serve()
        for step, loss in ((20, 0.01), (30, 5.0), (40, 0.01)):
            learn(server.address, step, loss)
        server.kill()
        server = serve()  # the receiver is still away

        receiver.script = [status(503)]
        receiver.start()
        try:
            expected = said(server.address)
            wait(lambda: len(heard(receiver)) >= len(expected))
            assert heard(receiver) == expected
            assert len(expected) >= 6
            assert len(list(events(receiver))) <= len(expected) + 4, "twice after a kill, not always"
            server.stop()
        finally:
            server.kill()
