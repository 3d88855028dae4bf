"""Alerts as Alertmanager takes them from Prometheus: what holds of each run now, not what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from pathwatch.server.config import Event, Webhook
from pathwatch.server.engine.view import RunView
from pathwatch.server.messages import action_name, phase_name
from pathwatch.server.notify.events import run_link, time_text
from pathwatch.v1 import run_pb2, signal_pb2

PATH = "/api/v2/alerts"
_SEVERITIES = {"OVERFITTING": "warning", "REGRESSING": "warning", "STOP": "warning"}

Labels = tuple[tuple[str, str], ...]
"""Sorted by name: what tells one alert from another."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that holds of a run."""

    labels: Labels
    summary: str
    description: str
    url: str
    """Of the run's page; empty = none."""


def alerts_url(url: str) -> str:
    """Where alerts are posted, of an Alertmanager's own address."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(PATH) else path + PATH))


def conditions(
    webhook: Webhook, views: Iterable[RunView], now: float, public_url: str
) -> Iterator[Condition]:
    """What holds at `now` (seconds since the epoch) of runs that take data, and the webhook wants."""
    for view in views:
        run = view.run.name
        if view.run.state != run_pb2.RUN_STATE_ACTIVE or not webhook.is_for(run):
            continue
        signal = view.signal(now)
        url = run_link(run, public_url) if public_url else ""
        if Event.ACTION in webhook.events and signal.action != signal_pb2.ACTION_CONTINUE:
            yield _action(run, signal, url)
        if Event.PHASE in webhook.events:
            for status in signal.groups:
                if phase_name(status.phase) in webhook.phases and webhook.is_for(run, status.group):
                    yield _phase(run, status, url)


def alert_document(condition: Condition, starts_at: float, ends_at: float) -> dict[str, object]:
    """As POST /api/v2/alerts takes it, over once `ends_at` is past; times in seconds since the epoch."""
    document: dict[str, object] = {
        "labels": dict(condition.labels),
        "annotations": {"summary": condition.summary, "description": condition.description},
        "startsAt": time_text(starts_at),
        "endsAt": time_text(ends_at),
    }
    return document | ({"generatorURL": condition.url} if condition.url else {})


def notice(text: str, now: float) -> list[dict[str, object]]:
    """An alert that tells of nothing, and is over in a minute."""
    labels = _labels(alertname="PathwatchTest", severity="info")
    condition = Condition(labels=labels, summary=text, description=text, url="")
    return [alert_document(condition, now, now + 60)]


def _action(run: str, signal: signal_pb2.Signal, url: str) -> Condition:
    name = action_name(signal.action)
    at = f" at step {signal.stop_at_step}" if signal.HasField("stop_at_step") else ""
    best = (
        f" The best checkpoint is that of step {signal.best_checkpoint_step}."
        if signal.HasField("best_checkpoint_step")
        else ""
    )
    return Condition(
        labels=_labels(
            alertname=f"Pathwatch{name.title()}Advised", run=run, severity=_SEVERITIES.get(name, "info")
        ),
        summary=f"{run} is advised to {name}{at}",
        description=signal.reason + best,
        url=url,
    )


def _phase(run: str, status: signal_pb2.GroupStatus, url: str) -> Condition:
    name = phase_name(status.phase)
    return Condition(
        labels=_labels(
            alertname=f"PathwatchGroup{name.title()}",
            run=run,
            group=status.group,
            severity=_SEVERITIES.get(name, "info"),
        ),
        summary=f"{run}: {status.group} is {name}",
        description=f"{status.reason} (since step {status.since_step})",
        url=url,
    )


def _labels(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))
