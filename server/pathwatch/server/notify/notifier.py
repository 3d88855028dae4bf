"""Notifications as a whole: a courier for each webhook of the file, as the file changes."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.permissions import warn_if_open
from pathwatch.server.access.reloading import CHECK_SECONDS, Reloaded
from pathwatch.server.config import Format, Webhook, WebhookTable, read_webhooks, webhook_warnings
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.engine import Engine
from pathwatch.server.notify.alert_courier import AlertCourier
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.notify.courier import Courier, House
from pathwatch.server.notify.event_courier import EventCourier
from pathwatch.server.notify.positions import Positions, known_webhooks
from pathwatch.server.store.interface import StoreReader

log = logging.getLogger("pathwatch.server")

DRAIN_SECONDS = 3.0
"""How long a stop waits for what is being sent; what is not sent then, is after the next start."""


class Notifier:
    """Tells webhooks of what changes; `start` and `close` are called once, by one thread."""

    def __init__(
        self,
        engine: Engine,
        store: StoreReader,
        data: Path,
        file: Path,
        public_url: str,
        access: AccessCounts,
    ) -> None:
        """Raises OSError and WebhooksError where the file cannot be used."""
        self.counts = DeliveryCounts()
        self._house = House(
            engine=engine,
            store=store,
            data=data,
            public_url=public_url,
            counts=self.counts,
            clock=Clock(),
        )
        self._file = Reloaded(f"webhooks: {file}", [file], lambda: _read(file), access.reader_of("webhooks"))
        self._couriers: dict[str, Courier] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        """Of each run: when it was created, its last signal, its state."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow_file, name="pathwatch-webhooks", daemon=True)
        engine.listen(self._notify)

    def start(self) -> None:
        """Begin; the engine has started."""
        table = self._file.current()
        for name in set(known_webhooks(self._house.data)) - {webhook.name for webhook in table.webhooks}:
            Positions(self._house.data, name).remove()
        self._apply(table)
        self._table = table
        self._thread.start()

    def close(self) -> None:
        """Deliver what can be delivered at once, for DRAIN_SECONDS at most. The engine has stopped."""
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._thread.join()
        couriers = list(self._couriers.values())
        for courier in couriers:
            courier.close()
        deadline = time.monotonic() + DRAIN_SECONDS
        for courier in couriers:
            courier.join(max(0.0, deadline - time.monotonic()))

    def _notify(self, run: str) -> None:
        """In the writer's thread: wake nobody for what concerns nobody, as most commits do."""
        view = self._house.engine.views.get(run)
        if view is None:
            self._seen.pop(run, None)
        else:
            stands = (view.run.created_at.ToMicroseconds(), view.last_signal.revision, view.run.state)
            if self._seen.get(run) == stands:
                return
            self._seen[run] = stands
        for courier in self._couriers.values():
            courier.notify(run)

    def _follow_file(self) -> None:
        while not self._closing.wait(CHECK_SECONDS):
            table = self._file.current()
            if table is not self._table:
                self._apply(table)
                self._table = table

    def _apply(self, table: WebhookTable) -> None:
        """Begin, go on or end, webhook by webhook. A name that is not there any more is forgotten."""
        couriers = dict(self._couriers)
        wanted = {webhook.name: webhook for webhook in table.webhooks}
        for name, courier in self._couriers.items():
            if name not in wanted or _kind(wanted[name]) is not type(courier):
                courier.dismiss()
                del couriers[name]
                Positions(self._house.data, name).remove()
                self.counts.forget(name)
        for name, webhook in wanted.items():
            if name not in couriers:
                self.counts.know(name)
                couriers[name] = _kind(webhook)(webhook, self._house)
                couriers[name].start()
            elif couriers[name].webhook != webhook:
                couriers[name].configure(webhook)
        self._couriers = couriers  # swapped as a whole: others walk through it
        for run in self._house.engine.views:  # what changed before a courier was among them
            for courier in couriers.values():
                courier.notify(run)


def _kind(webhook: Webhook) -> type[AlertCourier] | type[EventCourier]:
    return AlertCourier if webhook.format is Format.ALERTMANAGER else EventCourier


def _read(file: Path) -> WebhookTable:
    table = read_webhooks(file)
    for path in (*([file] if table.holds_secrets else []), *table.secret_files):
        warn_if_open(path)
    for warning in webhook_warnings(table):
        log.warning(warning)
    return table
