"""Which servers are asked last, and for how long."""

from __future__ import annotations

from pathwatch.server.relay.avoidance import ALONE_SECONDS, SLOW_SECONDS, Avoidance


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_whoever_kept_somebody_waiting_is_asked_last_for_a_while() -> None:
    clock = Clock()
    avoidance = Avoidance(clock)
    avoidance.unreached("b", SLOW_SECONDS)
    avoidance.slow("a", SLOW_SECONDS)
    assert avoidance.order(["a", "b", "c", "d"]) == ["c", "d", "a", "b"]
    clock.now += ALONE_SECONDS
    assert avoidance.order(["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    assert not avoidance.is_unreached("b")


def test_only_who_could_not_be_reached_is_not_worth_going_to_for_a_run_of_its_own() -> None:
    avoidance = Avoidance(Clock())
    avoidance.unreached("gone", SLOW_SECONDS)
    avoidance.slow("busy", SLOW_SECONDS)
    assert avoidance.is_unreached("gone")
    assert not avoidance.is_unreached("busy")


def test_what_was_found_out_soon_may_be_found_out_again() -> None:
    avoidance = Avoidance(Clock())
    avoidance.unreached("a", SLOW_SECONDS / 2)
    avoidance.slow("a", SLOW_SECONDS / 2)
    assert avoidance.order(["a", "b"]) == ["a", "b"]
    assert not avoidance.is_unreached("a")
