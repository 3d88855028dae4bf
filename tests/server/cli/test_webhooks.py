"""`pathwatch webhooks`: what is configured, and whether it works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from alertmanager import AlertmanagerProcess
from click.testing import Result
from webhook_receiver import WebhookReceiver, status

SECRET = "0123456789abcdef-secret"  # noqa: S105


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(*entries: dict[str, object]) -> Path:
        path = tmp_path / "webhooks.yaml"
        path.write_text(yaml.safe_dump(list(entries)))
        return path

    return make


def test_check_lists_them_without_secrets(command: Callable[..., Result], write: Callable[..., Path]) -> None:
    url = "https://hooks.slack.com/services/T0/B0/slackslack"
    file = write(
        {"name": "talk", "format": "slack", "url": url},
        {"name": "own", "format": "pathwatch", "url": "http://[::1]:8080/?key=kk", "secret": SECRET},
    )
    result = command("webhooks", "check", file)
    assert result.exit_code == 0
    assert result.stdout == (
        "talk: slack to https://hooks.slack.com: action, phase\n"
        "own: pathwatch to http://[::1]:8080: action, phase\n"
    )
    assert command("webhooks", "check", file, "--name", "own").stdout.startswith("own: ")
    assert command("webhooks", "check", file, "--name", "none").exit_code == 2
    assert "there is no webhook 'none'" in command("webhooks", "check", file, "--name", "none").stderr


def test_test_says_what_each_answered(
    command: Callable[..., Result], write: Callable[..., Path], tmp_path: Path
) -> None:
    with (
        WebhookReceiver() as own,
        WebhookReceiver(status(404, b"no_service")) as slack,
        AlertmanagerProcess(tmp_path / "am") as alertmanager,
    ):
        file = write(
            {"name": "own", "format": "pathwatch", "url": own.url, "secret": SECRET},
            {"name": "talk", "format": "slack", "url": slack.url},
            {"name": "alerts", "format": "alertmanager", "url": alertmanager.url},
        )
        result = command("webhooks", "test", file)
        assert result.exit_code == 1
        assert result.stdout == (
            "own: delivered: it answered 200\n"
            "talk: not delivered: it answered 404: no_service\n"
            "alerts: delivered: it answered 200\n"
        )
        (document,) = own.documents()
        assert (document["version"], document["kind"]) == (1, "test")
        assert own.received[0].headers["X-Pathwatch-Signature"].startswith("t=")
        assert "this webhook works" in slack.documents()[0]["text"]
        assert [alert["labels"]["alertname"] for alert in alertmanager.alerts()] == ["PathwatchTest"]
        assert command("webhooks", "test", file, "--name", "own").exit_code == 0
        assert (len(own.received), len(slack.received)) == (2, 1)


def test_mistakes_are_one_line(
    command: Callable[..., Result], tmp_path: Path, write: Callable[..., Path]
) -> None:
    result = command("webhooks", "check", tmp_path / "none.yaml")
    assert (result.exit_code, result.stderr) == (
        2,
        f"pathwatch: cannot read {tmp_path / 'none.yaml'}: No such file or directory\n",
    )
    result = command("webhooks", "test", write({"name": "x", "format": "y"}))
    assert result.exit_code == 2
    assert "format must be one of" in result.stderr
