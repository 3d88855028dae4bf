"""What rank 0 does beside training when the signal changes or a checkpoint was saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pathwatch.integrations.observing.checkpoint_keeper import CheckpointKeeper
from pathwatch.integrations.observing.errands import Errands
from pathwatch.v1 import signal_pb2

_ARRANGING = "arranging checkpoints"


class Reactions:
    """Looks at every signal once; what follows from it runs in another thread."""

    def __init__(self, keeper: CheckpointKeeper) -> None:
        self._keeper = keeper
        self._errands = Errands()
        self._listeners: dict[str, Callable[[signal_pb2.Signal], None]] = {}
        self._seen: signal_pb2.Signal | None = None

    def listen(self, doing: str, react: Callable[[signal_pb2.Signal], None]) -> None:
        """Have `react` called, in another thread, with every new signal; where they come fast, the newest."""
        self._listeners[doing] = react

    def look(self, signal: signal_pb2.Signal | None) -> None:
        """The newest signal, as often as one likes."""
        if signal is None or signal is self._seen:
            return
        self._seen = signal
        for doing, react in self._listeners.items():
            self._errands.run(doing, partial(react, signal))
        self.arrange()

    def arrange(self) -> None:
        """Have links and deletions follow what the service thinks now."""
        if not self._keeper.idle:
            groups = [] if self._seen is None else [status.group for status in self._seen.groups]
            self._errands.run(_ARRANGING, partial(self._keeper.arrange, groups))

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for what is under way."""
        self._errands.close(timeout)
