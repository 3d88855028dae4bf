"""Runs that say what a test wants, receivers, and couriers between them that are taken step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from told_runs import ToldRuns
from webhook_receiver import WebhookReceiver

from pathwatch.server.config import Event, Format, Secret, Webhook
from pathwatch.server.notify.alert_courier import AlertCourier
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.notify.courier import Courier, House
from pathwatch.server.notify.event_courier import EventCourier

PHASES = ("UNKNOWN", "LEARNING", "MEMORIZED", "GENERALIZING", "GENERALIZED", "OVERFITTING", "REGRESSING")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[ToldRuns]:
    told = ToldRuns(tmp_path / "data")
    yield told
    told.store.close()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture
def counts() -> DeliveryCounts:
    counts = DeliveryCounts()
    counts.know("hook")
    return counts


def webhook(url: str, **changes: Any) -> Webhook:
    """One of format pathwatch that wants everything."""
    wanted: dict[str, Any] = {
        "name": "hook",
        "format": Format.PATHWATCH,
        "url": Secret(url),
        "events": frozenset(Event),
        "phases": frozenset(PHASES),
        "timeout_seconds": 60,
        "per_minute": 600,
    }
    return Webhook(**(wanted | changes))


@pytest.fixture
def hire(runs: ToldRuns, counts: DeliveryCounts) -> Callable[..., Courier]:
    """A courier as a start of the server has it, not started: `walk` it."""

    def make(url: str, **changes: Any) -> Courier:
        house = House(
            engine=runs,  # type: ignore[arg-type]
            store=runs.store,
            data=runs.data,
            public_url="https://pathwatch.example/ui/",
            counts=counts,
            clock=runs.clock,
        )
        hook = webhook(url, **changes)
        courier = (AlertCourier if hook.format is Format.ALERTMANAGER else EventCourier)(hook, house)
        runs.listen(courier.notify)
        return courier

    return make


@pytest.fixture
def walk() -> Callable[[Courier], float | None]:
    """Takes steps until nothing can be done at once; returns what the courier waits for then."""

    def go(courier: Courier) -> float | None:
        for _ in range(2000):
            if (wait := courier.step()) != 0:
                return wait
        raise AssertionError("it never rests")

    return go
