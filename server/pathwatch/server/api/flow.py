"""How much of one stream may be read ahead of its acknowledgements."""

from __future__ import annotations

import asyncio


class Flow:
    """Bytes read and not yet acknowledged; used on the event loop."""

    def __init__(self, limit: int) -> None:
        self.unacked = 0
        self._limit = limit
        self._released = asyncio.Event()

    async def acquire(self, size: int) -> None:
        """Count a message, once there is room for it; one message always has room."""
        while self.unacked and self.unacked + size > self._limit:
            self._released.clear()
            await self._released.wait()
        self.unacked += size

    def release(self, size: int) -> None:
        """Messages of this many bytes are acknowledged."""
        self.unacked -= size
        self._released.set()
