"""A stream that keeps what it is given, in place of the client's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pathwatch.integrations.observing import observer
from pathwatch.v1 import signal_pb2


@dataclass
class KeptStream:
    """Stands in for `RoutingStream`."""

    settings: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    signal: signal_pb2.Signal | None = None
    closed: bool = False

    def observe(self, **arguments: Any) -> None:
        self.events.append(("observe", arguments))

    def geometry(self, **arguments: Any) -> None:
        self.events.append(("geometry", arguments))

    def watermark(self, step: int) -> None:
        self.events.append(("watermark", {"step": step}))

    def register_checkpoint(self, **arguments: Any) -> None:
        self.events.append(("checkpoint", arguments))

    def close(self, timeout: float) -> None:
        self.closed = True

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.events if name == kind]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[KeptStream]:
    """Every stream opened by `attach`, oldest first."""
    opened: list[KeptStream] = []

    def open_stream(server: str, **settings: Any) -> KeptStream:
        opened.append(KeptStream({"server": server, **settings}))
        return opened[-1]

    monkeypatch.setattr(observer, "RoutingStream", open_stream)
    return opened


@pytest.fixture
def signal() -> Callable[..., signal_pb2.Signal]:
    """A signal as the service would give it."""

    def make(action: str, step: int, stop_at_step: int | None = None, **more: Any) -> signal_pb2.Signal:
        made = signal_pb2.Signal(
            run="r", step=step, action=signal_pb2.Action.Value(f"ACTION_{action}"), **more
        )
        if stop_at_step is not None:
            made.stop_at_step = stop_at_step
        return made

    return make
