"""Keeps an Alertmanager up to date on what holds: told of a change at once, and again while it lasts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from pathwatch.server.config import Webhook
from pathwatch.server.notify.alertmanager_format import Condition, Labels, alert_document, conditions
from pathwatch.server.notify.courier import Courier, House
from pathwatch.server.notify.delivery import Delivery
from pathwatch.server.notify.pacing import Backoff, TokenBucket
from pathwatch.server.notify.pathwatch_format import encode
from pathwatch.server.notify.sending import Outcome

RESEND_SECONDS = 60.0
"""How often alerts are sent again while they last, as Prometheus does."""
LASTS_SECONDS = 4 * RESEND_SECONDS
"""For how long Alertmanager takes an alert to last that is not sent again: this process may have died."""
MOST_SENT = 200
"""Alerts in one request."""


@dataclass(frozen=True, slots=True)
class _Firing:
    condition: Condition
    since: float
    """Seconds since the epoch."""
    until: float | None = None
    """None = it lasts."""


class AlertCourier(Courier):
    """For the format alertmanager."""

    def __init__(self, webhook: Webhook, house: House) -> None:
        super().__init__(webhook)
        self._house = house
        self._delivery = Delivery(house.counts, house.clock)
        self._configured = webhook
        self._bucket = TokenBucket(webhook.per_minute, house.clock.steady())
        self._backoff = Backoff()
        self._alerts: dict[Labels, _Firing] = {}
        """What lasts, and what has ended and Alertmanager does not know yet."""
        self._unsent: set[Labels] = set()
        """What Alertmanager does not know yet."""
        self._send_at = 0.0

    def step(self) -> float | None:
        now = self._house.clock.steady()
        self._reconfigure(now)
        news = self._look()
        self._house.counts.set_pending(self._configured.name, len(self._unsent))
        if now < self._send_at and not (news and self._backoff.is_fresh):
            return self._send_at - now
        if not self._alerts:
            return RESEND_SECONDS  # what turns stale is told by nobody
        if not self._bucket.take(now):
            return self._bucket.wait(now)
        self._send()
        return max(0.0, self._send_at - self._house.clock.steady())

    def _reconfigure(self, now: float) -> None:
        if self.webhook is self._configured:
            return
        if self.webhook.per_minute != self._configured.per_minute:
            self._bucket = TokenBucket(self.webhook.per_minute, now)
        self._configured = self.webhook
        self._send_at = 0.0
        self._backoff.reset()
        self._unsent.update(self._alerts)

    def _look(self) -> bool:
        """Compare with what holds now; whether Alertmanager is to be told of something new."""
        wall = self._house.clock.wall()
        views = self._house.engine.views.values()
        holding = {
            condition.labels: condition
            for condition in conditions(self._configured, views, wall, self._house.public_url)
        }
        for labels, condition in holding.items():
            known = self._alerts.get(labels)
            if known is None or known.until is not None:
                self._alerts[labels] = _Firing(condition, wall)
                self._unsent.add(labels)
            elif known.condition != condition:
                self._alerts[labels] = _Firing(condition, known.since)
                if known.condition.summary != condition.summary:
                    # Other words alone can wait: a reason may hold numbers that change with every window.
                    self._unsent.add(labels)
        for labels, alert in self._alerts.items():
            if alert.until is None and labels not in holding:
                self._alerts[labels] = _Firing(alert.condition, alert.since, max(wall, alert.since))
                self._unsent.add(labels)
        return bool(self._unsent)

    def _send(self) -> None:
        """Everything, in as many requests as it needs."""
        alerts = iter(list(self._alerts.items()))
        while some := list(islice(alerts, MOST_SENT)):
            wall = self._house.clock.wall()
            content = encode(
                [
                    alert_document(
                        alert.condition,
                        alert.since,
                        wall + LASTS_SECONDS if alert.until is None else alert.until,
                    )
                    for _, alert in some
                ]
            )
            answer = self._delivery.attempt(self._configured, content)
            if self.abandoned:
                return
            now = self._house.clock.steady()
            if answer.outcome is Outcome.RETRY:
                self._send_at = now + max(self._backoff.wait(), answer.retry_after)
                return
            if answer.outcome is Outcome.REFUSED:
                self._backoff.wait()
                self._send_at = now + RESEND_SECONDS
                return
            for labels, alert in some:
                self._unsent.discard(labels)
                if alert.until is not None:
                    del self._alerts[labels]
        self._backoff.reset()
        self._send_at = now + RESEND_SECONDS
        self._house.counts.set_pending(self._configured.name, len(self._unsent))
