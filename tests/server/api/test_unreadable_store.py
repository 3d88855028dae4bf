"""A store that cannot be read just now: callers hear that they may try again, and it is no fault of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from pathwatch.server.store.interface import DamagedError, StoreError
from pathwatch.server.store.rows import ObservationsRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2, signal_pb2

CALLS: dict[str, Callable[[Any], Any]] = {
    "history": lambda signals: (
        signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run"), timeout=60).windows
    ),
    "thinned_history": lambda signals: (
        signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run", max_points=10), timeout=60).windows
    ),
    "observations": lambda signals: list(
        signals.GetObservations(signal_pb2.GetObservationsRequest(run="run"), timeout=60)
    ),
}


@pytest.fixture
def with_a_round(service: Any, make_batch: Any, eventually: Any) -> Any:
    service.create(keep_observations=True)
    stream = service.stream()
    stream.hello()
    stream.send(make_batch(10))
    stream.await_ack(stream.send(routing_pb2.Watermark(step=10)))
    eventually(lambda: service.get().closed_step == 10)
    return service


@pytest.mark.parametrize("read", CALLS)
def test_a_caller_may_try_again(
    with_a_round: Any, read: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreError("cannot read Redis at redis.example:6379: Timeout reading from socket")

    monkeypatch.setattr(SqliteStore, read, away)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refused:
            CALLS[read](with_a_round.signals)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "run 'run'" in refused.value.details()
    assert "try again" in refused.value.details()
    assert "redis.example" not in refused.value.details()
    assert caplog.text.count("Timeout reading from socket") == 1
    assert "Traceback" not in caplog.text
    monkeypatch.undo()
    assert CALLS[read](with_a_round.signals)


@pytest.mark.parametrize("read", CALLS)
def test_of_what_nobody_can_read_no_caller_is_told_to_try_again(
    with_a_round: Any, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise DamagedError("bytes that nobody can read")

    monkeypatch.setattr(SqliteStore, read, damaged)
    with pytest.raises(grpc.RpcError) as refused:
        CALLS[read](with_a_round.signals)
    assert refused.value.code() is grpc.StatusCode.UNKNOWN
    assert "try again" not in refused.value.details()


def test_rounds_that_stop_coming_in_the_middle_are_not_taken_for_all(
    with_a_round: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SqliteStore.observations

    def half(self: SqliteStore, run: str, **options: Any) -> Iterator[ObservationsRow]:
        yield from whole(self, run, **options)
        raise StoreError("cannot read: connection refused")

    monkeypatch.setattr(SqliteStore, "observations", half)
    answers = with_a_round.signals.GetObservations(signal_pb2.GetObservationsRequest(run="run"), timeout=60)
    assert next(answers).round.step == 10
    with pytest.raises(grpc.RpcError) as refused:
        next(answers)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
