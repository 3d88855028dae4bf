"""What a relay remembers of where runs are."""

from __future__ import annotations

from pathwatch.server.relay.homes import Homes


def test_it_is_bounded_and_the_newest_are_kept() -> None:
    homes = Homes(2)
    for run in ("a", "b", "a", "c"):
        homes.put(run, f"server of {run}")
    assert [homes.get(run) for run in "abc"] == ["server of a", None, "server of c"]
    homes.forget("a")
    homes.forget("unknown")
    assert homes.get("a") is None
