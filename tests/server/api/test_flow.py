"""A stream is read no further ahead of its acks than allowed."""

from __future__ import annotations

import asyncio

import pytest

from pathwatch.server.api.flow import Flow


def test_reading_waits_for_acks() -> None:
    async def main() -> None:
        flow = Flow(100)
        await flow.acquire(60)
        waiting = asyncio.create_task(flow.acquire(60))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.05)
        flow.release(60)
        await asyncio.wait_for(waiting, 30)
        assert flow.unacked == 60

    asyncio.run(main())


def test_one_message_always_has_room() -> None:
    async def main() -> None:
        flow = Flow(100)
        await asyncio.wait_for(flow.acquire(1000), 30)
        flow.release(1000)
        assert flow.unacked == 0

    asyncio.run(main())
