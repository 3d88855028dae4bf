"""examples/notifications and the snippet of docs/notifications.md do what they say."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pathwatch.server.config import Format, Secret, ServerConfig, Webhook, check, read_webhooks
from pathwatch.server.notify.delivery import attempt
from pathwatch.server.notify.pathwatch_format import SIGNATURE, signature
from pathwatch.server.notify.sending import Answer, Outcome

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "notifications"
SECRET = "0123456789abcdef-secret"  # noqa: S105
EVENT = {"version": 1, "id": "one", "kind": "phase", "run": "r", "group": "math", "after": "GENERALIZED"}


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """The examples, and the secrets that people put beside them."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    (folder / "signing.key").write_text(SECRET + "\n")
    (folder / "slack.url").write_text("https://hooks.slack.com/services/T0/B0/x\n")
    return folder


@pytest.mark.parametrize("name", ["receiver", "slack", "alertmanager"])
def test_the_files_are_valid(name: str, filled: Path) -> None:
    file = filled / f"{name}.yaml"
    assert check(ServerConfig(data=filled, webhooks=file)) == []
    (webhook,) = read_webhooks(file).webhooks
    assert webhook.format == {"receiver": "pathwatch"}.get(name, name)
    assert not read_webhooks(file).holds_secrets or name != "slack"


def test_amtool_takes_the_route(filled: Path) -> None:
    done = subprocess.run(
        ["amtool", "check-config", filled / "alertmanager-route.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for labels, receiver in (
        (["alertname=PathwatchStopAdvised", "severity=warning"], "training"),
        (["alertname=PathwatchGroupGeneralized", "severity=info"], "nobody"),
        (["alertname=Other", "severity=warning"], "nobody"),
    ):
        routed = subprocess.run(
            [
                "amtool",
                "config",
                "routes",
                "test",
                f"--config.file={filled / 'alertmanager-route.yml'}",
                *labels,
            ],
            capture_output=True,
            text=True,
        )
        assert routed.stdout.strip() == receiver


@pytest.fixture
def receiver(filled: Path) -> Iterator[tuple[Webhook, subprocess.Popen[str]]]:
    """The example receiver on a free port, and a webhook for it."""
    start = (
        "import sys, runpy, http.server as h; listen = h.HTTPServer.server_activate\n"
        "def tell(self): listen(self); print(self.server_address[1], flush=True)\n"
        "h.HTTPServer.server_activate = tell; del sys.argv[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start, EXAMPLES / "receiver.py", filled / "signing.key", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    yield (
        Webhook(
            name="hook",
            format=Format.PATHWATCH,
            url=Secret(f"http://127.0.0.1:{port}/"),
            events=frozenset(),
            phases=frozenset(),
            secret=Secret(SECRET),
        ),
        process,
    )
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_receiver_takes_each_event_once_and_no_forgeries(
    receiver: tuple[Webhook, subprocess.Popen[str]],
) -> None:
    webhook, process = receiver
    other = EVENT | {"id": "two", "kind": "action", "group": None, "after": "STOP"}
    bodies = [EVENT, EVENT, {"version": 1, "id": "sum", "kind": "summary", "events": [EVENT, other]}]
    for body in bodies:
        answer = attempt(webhook, json.dumps(body).encode(), time.time())
        assert answer == Answer(Outcome.DELIVERED, "it answered 204")
    forged = json.dumps(EVENT | {"id": "three"}).encode()
    assert attempt(webhook, forged, time.time() - 301).said.startswith("it answered 401")
    # Still too far ahead when it is looked at: the clock goes on meanwhile.
    assert attempt(webhook, forged, time.time() + 330).said.startswith("it answered 401")
    host, port = webhook.url.read().removeprefix("http://").rstrip("/").split(":")
    signed = signature(forged, "another secret", time.time())
    for header in ({}, {SIGNATURE: ""}, {SIGNATURE: "t=1"}, {SIGNATURE: signed}, {SIGNATURE: "t=²,v1=é"}):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", "/", forged, header)
        assert connection.getresponse().status == 401
        connection.close()
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read().splitlines() == ["phase r math GENERALIZED", "action r None STOP"]


@pytest.fixture
def is_genuine() -> Callable[[bytes, str, str], bool]:
    """As docs/notifications.md has it."""
    page = (ROOT / "docs" / "notifications.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102  # our own page
    verify: Callable[[bytes, str, str], bool] = names["is_genuine"]
    return verify


def test_the_snippet_of_the_page(is_genuine: Callable[[bytes, str, str], bool]) -> None:
    body, now = b'{"a": "\xc3\xa4"}', time.time()
    good = signature(body, SECRET, now)
    assert is_genuine(body, good, SECRET)
    assert is_genuine(body, good + ",v2=later", SECRET)
    assert not is_genuine(body + b" ", good, SECRET)
    assert not is_genuine(body, good, SECRET + "x")
    assert not is_genuine(body, good.replace("t=", "t=1"), SECRET)
    assert not is_genuine(body, signature(body, SECRET, now - 400), SECRET)
    for nonsense in ("", "t=,v1=", "v1=" + good, "t=x,v1=y", "==,,=", good.partition(",")[0]):
        assert not is_genuine(body, nonsense, SECRET)


def test_the_pages_table_of_keys_is_that_of_the_code() -> None:
    from pathwatch.server.config.webhook_fields import KEYS

    page = (ROOT / "docs" / "notifications.md").read_text()
    table = page.partition("| key |")[2].partition("\n\n")[0]
    named = {
        key
        for row in table.splitlines()
        for key in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row[:1] else "")
    }
    assert named == set(KEYS)
