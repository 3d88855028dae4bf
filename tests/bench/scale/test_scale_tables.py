"""Tables say what was measured, and round down what fits."""

from __future__ import annotations

from bench.scale.relaying import Relayed, Way
from bench.scale.spreading import Spread, Turn
from bench.scale.tables import relay_table, spread_table, takeover_table
from bench.scale.takeover import Takeovers


def _cells(table: str, line: int) -> list[str]:
    """Of a line after the header and its rule, counted from 0."""
    return [cell.strip() for cell in table.splitlines()[2 + line].strip("|").split("|")]


def _turn(seconds: float) -> Turn:
    return Turn(seconds=seconds, shard_cpu=2 * seconds, redis_cpu=0.1, sender_cpu=0.2)


def test_ratios_are_those_of_turns_that_ran_one_after_the_other() -> None:
    # The machine was half as fast in the second turn: the ratio is the same.
    spread = Spread(
        rounds=12,
        round_bytes=1_000_000,
        one=(_turn(10), _turn(20), _turn(10)),
        two=(_turn(5), _turn(10), _turn(8)),
        one_free=(_turn(10), _turn(20), _turn(10)),
        computing_ratios=(1.9, 1.8, 2.0),
    )
    table = spread_table(spread)
    assert _cells(table, 0)[:3] == ["one shard, confined to one core", "10.0", "1.00"]
    assert _cells(table, 1)[1:4] == ["8.0", "2.00 (1.25 to 2.00)", "16.0"]
    assert _cells(table, 3)[2] == "1.90 (1.80 to 2.00)"


def test_takeovers_are_told_with_and_without_the_lease() -> None:
    table = takeover_table([Takeovers(lease_seconds=5, open_bytes=1, seconds=(5.5, 6.25, 4.0))])
    assert _cells(table, 0) == ["5 s", "3 times", "5.5 s", "4.0 s", "6.2 s", "+1.2 s"]


def test_what_a_relay_keeps_from_the_shard_is_a_share_of_what_came() -> None:
    found = Relayed(
        windows=3,
        sent_bytes=100_000_000,
        direct=Way(seconds=2, shard_cpu=0.5, relay_cpu=0, connections=8),
        relayed=Way(seconds=4, shard_cpu=0.2, relay_cpu=1.0, connections=1),
        received_bytes=1e9,
        forwarded_bytes=2.5e8,
    )
    table = relay_table(found)
    assert _cells(table, 0)[1:] == ["50", "25"]
    assert _cells(table, 1)[1:] == ["100%", "25.0%"]
    assert _cells(table, 2)[1:] == ["5 ms", "2 ms"]
    assert _cells(table, 3)[1:] == ["", "10 ms"]
    assert _cells(table, 4)[1:] == ["8", "1"]
