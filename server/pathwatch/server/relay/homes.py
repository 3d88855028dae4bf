"""Where runs were served last."""

from __future__ import annotations

from collections import OrderedDict


class Homes:
    """Run → HOST:PORT; of too many, those not heard of for longest are forgotten."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._homes: OrderedDict[str, str] = OrderedDict()

    def get(self, run: str) -> str | None:
        """The server that had it last, or has it as others say; None = not known."""
        return self._homes.get(run)

    def put(self, run: str, address: str) -> None:
        """A server has it."""
        self._homes[run] = address
        self._homes.move_to_end(run)
        if len(self._homes) > self._most:
            self._homes.popitem(last=False)

    def forget(self, run: str) -> None:
        """It may be anywhere."""
        self._homes.pop(run, None)
