"""In which order servers are asked for a run."""

from __future__ import annotations

from pathwatch.server.relay.avoidance import Avoidance
from pathwatch.server.relay.tour import Tour


def test_each_is_asked_once_and_the_owner_next() -> None:
    tour = Tour(["home", "a", "home", "b"], Avoidance())
    asked = []
    for address in tour:
        asked.append(address)
        if address == "a":
            tour.point("owner")
    assert asked == ["home", "a", "owner", "b"]
    assert tour.redirected


def test_an_owner_that_was_found_to_be_away_is_not_asked_again() -> None:
    avoidance = Avoidance()
    avoidance.unreached("silent", 60)
    tour = Tour(["gone", "a", "b"], avoidance)
    asked = []
    for address in tour:
        asked.append(address)
        if address == "gone":
            tour.away("gone")
        else:
            tour.point("gone" if address == "a" else "silent")
    assert asked == ["gone", "a", "b"]
    assert tour.redirected


def test_nobody_is_sent_to_and_fro_for_ever() -> None:
    tour = Tour(["a"], Avoidance())
    asked = []
    for address in tour:
        asked.append(address)
        tour.point("b" if address == "a" else "a")
    assert asked == ["a", "b", "a", "b", "a"]


def test_an_owner_that_is_not_known_leads_nowhere() -> None:
    tour = Tour(["a", "b"], Avoidance())
    asked = []
    for address in tour:
        asked.append(address)
        tour.point("")
    assert asked == ["a", "b"]
    assert tour.redirected
