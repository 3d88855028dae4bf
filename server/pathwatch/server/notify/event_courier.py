"""Tells a webhook of every change, in order, across restarts; more than once only where it cannot know."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.config import Format, Webhook
from pathwatch.server.failpoints import reach
from pathwatch.server.notify import pathwatch_format, slack_format
from pathwatch.server.notify.backlog import Backlog, Pending
from pathwatch.server.notify.courier import Courier, House
from pathwatch.server.notify.delivery import Delivery
from pathwatch.server.notify.events import Notification, is_wanted, kind_of
from pathwatch.server.notify.pacing import Backoff, TokenBucket
from pathwatch.server.notify.positions import Positions
from pathwatch.server.notify.sending import Outcome

MOST_JOINED = 100
"""Changes in one notification; what is over that comes with the next."""
STORE_SECONDS = 1.0
"""How long after a failed read the next is tried."""


class EventCourier(Courier):
    """For the formats pathwatch and slack."""

    def __init__(self, webhook: Webhook, house: House) -> None:
        super().__init__(webhook)
        self._house = house
        self._backlog = Backlog(house.engine, house.store, Positions(house.data, webhook.name))
        self._delivery = Delivery(house.counts, house.clock)
        self._configured = webhook
        self._bucket = TokenBucket(webhook.per_minute, house.clock.steady())
        self._backoff = Backoff()
        self._at_hand: Sequence[Pending] = ()
        """What the notification under way tells of."""
        self._content = b""
        """Of that notification: the same on every attempt."""
        self._joining = False
        """Whether the rate has held changes back."""
        self._retry_at = 0.0

    def notify(self, run: str) -> None:
        self._backlog.notify(run)
        super().notify(run)

    def dismiss(self) -> None:
        super().dismiss()
        self._backlog.close()

    def step(self) -> float | None:
        now = self._house.clock.steady()
        self._reconfigure(now)
        webhook = self._configured
        readable = self._backlog.fill(lambda change: is_wanted(webhook, change), now)
        self._house.counts.set_pending(webhook.name, len(self._backlog))
        if not self._at_hand:
            if not len(self._backlog):
                return None if readable else STORE_SECONDS
            if not self._bucket.take(now):
                self._joining = True
                return self._bucket.wait(now)
            self._at_hand = self._backlog.peek(MOST_JOINED if self._joining else 1)
            self._joining = False
            self._content = self._compose()
        if now < self._retry_at:
            return self._retry_at - now
        self._attempt(now)
        return 0.0

    def finish(self) -> None:
        self._backlog.save()

    def _reconfigure(self, now: float) -> None:
        if self.webhook is self._configured:
            return
        if self.webhook.per_minute != self._configured.per_minute:
            self._bucket = TokenBucket(self.webhook.per_minute, now)
        self._configured = self.webhook
        self._retry_at = 0.0  # what failed may be what was mended
        webhook = self._configured
        self._backlog.keep(lambda change: is_wanted(webhook, change))
        self._at_hand = [pending for pending in self._at_hand if is_wanted(webhook, pending.change)]
        if self._at_hand:
            self._content = self._compose()

    def _compose(self) -> bytes:
        notification = Notification([pending.change for pending in self._at_hand])
        form = slack_format.message if self._configured.format is Format.SLACK else pathwatch_format.document
        return pathwatch_format.encode(form(notification, self._house.public_url))

    def _attempt(self, now: float) -> None:
        webhook = self._configured
        answer = self._delivery.attempt(webhook, self._content)
        if self.abandoned:
            return
        if answer.outcome is Outcome.DELIVERED:
            reach("webhook.delivered")
        elif answer.outcome is Outcome.REFUSED or self._is_too_old(now):
            self._delivery.give_up(webhook, self._what(), answer)
        else:
            now = self._house.clock.steady()  # the attempt took its time
            self._retry_at = now + max(self._backoff.wait(), answer.retry_after)
            return
        self._backoff.reset()
        self._retry_at = 0.0
        self._backlog.settle(len(self._at_hand))
        self._at_hand = ()

    def _is_too_old(self, now: float) -> bool:
        return now - self._at_hand[0].known_at >= 3600 * self._configured.give_up_hours

    def _what(self) -> str:
        first = self._at_hand[0].change
        more = f" and {len(self._at_hand) - 1} more changes" if len(self._at_hand) > 1 else ""
        return f"{kind_of(first)} of revision {first.revision} of run {first.run!r}{more}"
