"""Attempts to reach one webhook: signed, counted, and logged once per outage."""

from __future__ import annotations

import logging

from pathwatch.server.config import Format, SecretError, Webhook
from pathwatch.server.engine.clock import Clock
from pathwatch.server.notify.alertmanager_format import alerts_url
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.notify.pathwatch_format import SIGNATURE, signature
from pathwatch.server.notify.sending import Answer, Outcome, post

log = logging.getLogger("pathwatch.server")


def attempt(webhook: Webhook, content: bytes, now: float) -> Answer:
    """Send `content` once, at `now` (seconds since the epoch)."""
    headers = {}
    try:
        url = webhook.url.read()
        if webhook.secret is not None:
            headers[SIGNATURE] = signature(content, webhook.secret.read(), now)
    except SecretError as error:
        return Answer(Outcome.RETRY, str(error))
    if webhook.format is Format.ALERTMANAGER:
        url = alerts_url(url)
    return post(webhook, url, content, headers)


class Delivery:
    """Used by one thread."""

    def __init__(self, counts: DeliveryCounts, clock: Clock) -> None:
        self._counts = counts
        self._clock = clock
        self._failures = 0
        self._failing_since = 0.0

    def attempt(self, webhook: Webhook, content: bytes) -> Answer:
        """Once."""
        answer = attempt(webhook, content, self._clock.wall())
        if answer.outcome is Outcome.DELIVERED:
            self._counts.count(webhook.name, "delivered")
            self._recover(webhook)
        else:
            self._counts.count(webhook.name, "failed")
            self._fail(webhook, answer)
        return answer

    def give_up(self, webhook: Webhook, what: str, answer: Answer) -> None:
        """No further attempt is made for `what`."""
        self._counts.count(webhook.name, "dropped")
        log.error(
            "webhook %r: given up: %s; %s",
            webhook.name,
            what,
            answer.said,
            extra={"webhook": webhook.name},
        )

    def _fail(self, webhook: Webhook, answer: Answer) -> None:
        if self._failures == 0:
            self._failing_since = self._clock.steady()
            refused = answer.outcome is Outcome.REFUSED
            log.warning(
                "webhook %r %s: %s",
                webhook.name,
                "refuses what it is sent"
                if refused
                else "cannot be reached, and is tried again until it can",
                answer.said,
                extra={"webhook": webhook.name},
            )
        self._failures += 1

    def _recover(self, webhook: Webhook) -> None:
        if self._failures:
            log.warning(
                "webhook %r is reached again after %d attempts in vain, in %.0f s",
                webhook.name,
                self._failures,
                self._clock.steady() - self._failing_since,
                extra={"webhook": webhook.name},
            )
        self._failures = 0
