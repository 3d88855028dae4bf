"""Reading ahead of acks: bounded for each stream, each run and all; fair between runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.api.flow import Flow, InFlight
from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import LimitError

SMALL = Limits(
    unacked_bytes_per_stream=100,
    unacked_bytes_per_run=150,
    unacked_bytes=200,
    waiting_bytes=500,
    waiting_seconds=3600,
)


def run(main: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))  # type: ignore[arg-type]


async def settled() -> None:
    """Lets every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    await settled()
    return not task.done()


def test_a_stream_waits_for_its_own_acks() -> None:
    async def main() -> None:
        flow = Flow("run", SMALL, InFlight(SMALL))
        await flow.acquire(60)
        waiting = asyncio.create_task(flow.acquire(60))
        assert await is_waiting(waiting)
        flow.release(60)
        await waiting
        assert flow.unacked == 60

    run(main)


def test_one_message_always_has_room() -> None:
    async def main() -> None:
        in_flight = InFlight(SMALL)
        flow = Flow("run", SMALL, in_flight)
        await flow.acquire(1000)
        flow.release(1000)
        assert (flow.unacked, in_flight.unacked) == (0, 0)

    run(main)


def test_a_run_waits_while_others_go_on() -> None:
    async def main() -> None:
        in_flight = InFlight(SMALL)
        a, b = (Flow("flood", SMALL, in_flight) for _ in range(2))
        other = Flow("other", SMALL, in_flight)
        await a.acquire(90)
        crowded = asyncio.create_task(b.acquire(90))
        assert await is_waiting(crowded)
        await other.acquire(90)
        a.release(90)
        await crowded
        assert in_flight.unacked == 180

    run(main)


def test_room_goes_to_runs_in_turn() -> None:
    # A run alone may take everything, so that nothing but turns keeps it from doing so.
    limits = replace(SMALL, unacked_bytes_per_run=200)

    async def main() -> None:
        in_flight = InFlight(limits)
        first = Flow("full", limits, in_flight)
        second = Flow("full-too", limits, in_flight)
        await first.acquire(100)
        await second.acquire(100)
        order: list[str] = []

        async def ask(name: str) -> None:
            await Flow(name, limits, in_flight).acquire(100)
            order.append(name)

        tasks = [asyncio.create_task(ask(name)) for name in ["flood"] * 4 + ["paced"]]
        await settled()
        assert order == []
        first.release(100)
        await settled()
        second.release(100)
        await settled()
        assert order == ["flood", "paced"]
        for task in tasks:
            task.cancel()

    run(main)


def test_a_large_message_is_not_overtaken_for_ever() -> None:
    async def main() -> None:
        in_flight = InFlight(SMALL)
        small = [Flow(f"run{i}", SMALL, in_flight) for i in range(4)]
        for flow in small:
            await flow.acquire(50)
        large = asyncio.create_task(Flow("large", SMALL, in_flight).acquire(150))
        await settled()
        late = asyncio.create_task(Flow("late", SMALL, in_flight).acquire(50))
        small[0].release(50)
        assert await is_waiting(late)
        small[1].release(50)
        small[2].release(50)
        await large
        small[3].release(50)
        await late

    run(main)


def test_too_much_that_waits_is_sent_away_at_once() -> None:
    async def main() -> None:
        in_flight = InFlight(SMALL)
        flow = Flow("run", SMALL, in_flight)
        await flow.acquire(100)
        waiting = [asyncio.create_task(Flow("run", SMALL, in_flight).acquire(100)) for _ in range(2)]
        await settled()
        assert in_flight.waiting == 200
        with pytest.raises(LimitError, match="200 bytes of messages wait for room already"):
            await Flow("run", SMALL, in_flight).acquire(100)
        # The other half is for others, as long as there is any.
        await Flow("other", SMALL, in_flight).acquire(100)
        waiting += [asyncio.create_task(Flow(name, SMALL, in_flight).acquire(100)) for name in "abc"]
        await settled()
        assert in_flight.waiting == 500
        with pytest.raises(LimitError, match="500 bytes of messages wait for room already"):
            await Flow("d", SMALL, in_flight).acquire(100)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert in_flight.waiting == 0

    run(main)


def test_messages_of_a_run_that_floods_are_in_nobody_elses_way() -> None:
    """Forty streams of one run, with the limits as they are: much waits, the rest is sent away."""
    message = 16 << 20

    async def main() -> None:
        limits = Limits()
        in_flight = InFlight(limits)
        flood = [asyncio.create_task(Flow("flood", limits, in_flight).acquire(message)) for _ in range(40)]
        await settled()
        assert in_flight.unacked == limits.unacked_bytes_per_run
        assert any(task.done() and task.exception() for task in flood)
        quiet = [asyncio.create_task(Flow("quiet", limits, in_flight).acquire(message)) for _ in range(12)]
        await settled()
        assert in_flight.unacked == 2 * limits.unacked_bytes_per_run
        # Beyond its room it may wait, too.
        assert not any(task.done() for task in quiet[8:])
        for task in flood + quiet:
            task.cancel()
        await asyncio.gather(*flood, *quiet, return_exceptions=True)
        assert in_flight.waiting == 0

    run(main)


@pytest.mark.slow
def test_who_is_crowded_out_is_sent_away_but_not_who_has_messages_under_way() -> None:
    limits = Limits(
        unacked_bytes_per_stream=100, unacked_bytes_per_run=150, unacked_bytes=200, waiting_seconds=1
    )

    async def main() -> None:
        in_flight = InFlight(limits)
        holder, busy = Flow("holder", limits, in_flight), Flow("busy", limits, in_flight)
        await holder.acquire(100)
        await busy.acquire(60)
        in_flight.take("third", 40)
        patient = asyncio.create_task(busy.acquire(40))
        await settled()
        with pytest.raises(LimitError, match=r"no room for 1 s: .* bytes of all runs") as refusal:
            await Flow("late", limits, in_flight).acquire(100)
        assert refusal.value.limit == "waiting_seconds"
        assert not patient.done()
        patient.cancel()

    run(main)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(1, 120), st.booleans()), max_size=40
    ),
    st.randoms(use_true_random=False),
)
def test_the_counts_hold_whatever_happens(events: list[tuple[str, int, int, bool]], random: Any) -> None:
    """Acquire, release and cancel at random: bounds hold throughout, and all is given back in the end."""

    async def main() -> None:
        in_flight = InFlight(SMALL)
        flows = {(name, i): Flow(name, SMALL, in_flight) for name in "ab" for i in range(3)}
        asking: dict[tuple[str, int], asyncio.Task[None]] = {}
        held: dict[tuple[str, int], list[int]] = {key: [] for key in flows}

        async def ask(key: tuple[str, int], size: int) -> None:
            await flows[key].acquire(size)
            held[key].append(size)

        for name, number, size, cancels in events:
            key = name, number
            if key in asking and not asking[key].done():
                if cancels:
                    asking[key].cancel()
                elif held[key]:
                    flows[key].release(held[key].pop(random.randrange(len(held[key]))))
            else:
                asking[key] = asyncio.create_task(ask(key, size))
            await settled()
            for one in "ab":
                sizes = [s for (n, _), many in held.items() if n == one for s in many]
                assert sum(sizes) <= max(150, max(sizes, default=0))
            everything = [s for many in held.values() for s in many]
            assert in_flight.unacked == sum(everything) <= max(200, max(everything, default=0))
        for task in asking.values():
            task.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)
        for flow in flows.values():
            flow.close()
        assert (in_flight.unacked, in_flight.waiting) == (0, 0)

    run(main)
