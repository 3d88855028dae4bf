"""Messages in order, each sent when its numbers have reached the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pathwatch.integrations.capture import HostCopy, Reading
from pathwatch.integrations.observing.host_reading import unpack
from pathwatch.integrations.observing.sender import Sender

Floats: TypeAlias = NDArray[np.float32]


class Outbox:
    """First in, first out; nothing in it makes the device wait before `close`."""

    def __init__(self) -> None:
        self._queue: deque[tuple[HostCopy | None, Callable[[Floats], None]]] = deque()

    def add(self, packed: Tensor, send: Callable[[Floats], None]) -> None:
        """Start copying a tensor to the host; `send` is called with it later."""
        self._queue.append((HostCopy(packed), send))

    def then(self, send: Callable[[], None]) -> None:
        """Send something once all before it is sent."""
        self._queue.append((None, lambda _: send()))

    def deliver(self, *, wait: bool = False) -> None:
        """Send what has arrived; with `wait` everything."""
        while self._queue:
            copy, send = self._queue[0]
            if copy is not None and not wait and not copy.ready():
                return
            self._queue.popleft()
            send(np.empty(0, np.float32) if copy is None else copy.tensor().numpy())


def send_reading(
    sender: Sender,
    *,
    step: int,
    reading: Reading,
    packed_NX: Floats,
    rows_by_group: Mapping[str, NDArray[np.int64]],
    sample_ids_N: NDArray[np.int64],
    visits_N: NDArray[np.int32] | None,
) -> None:
    """Send one batch's samples, group by group.

    Samples without a real token, or with labels but no target token, say nothing and are left out.
    Of samples whose tokens are split over processes every part goes, an empty one too: only the server sees
    all of them.
    """
    for group, rows in rows_by_group.items():
        arrays = unpack(reading, packed_NX[rows])
        useful = (arrays.tokens_N > 0) & (arrays.target_tokens_N > 0)
        if sender.token_parts == 1 and not useful.all():
            rows = rows[useful]
            arrays = unpack(reading, packed_NX[rows])
        if len(rows):
            visits = None if visits_N is None else visits_N[rows]
            sender.observe(
                step=step, group=group, sample_ids_N=sample_ids_N[rows], arrays=arrays, visits_N=visits
            )
