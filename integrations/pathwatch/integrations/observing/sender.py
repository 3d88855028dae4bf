"""What one process sends of a job that may be split over several."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathwatch.client import RoutingStream
from pathwatch.integrations.observing.host_reading import HostReading
from pathwatch.integrations.observing.layout import Layout
from pathwatch.v1 import signal_pb2


class Sender:
    """Sends this process's part of every observation, marked as such; nothing where another one sends it."""

    def __init__(self, stream: RoutingStream | None, layout: Layout, experts: int) -> None:
        """`stream`: None where the layout has no sender here."""
        self._stream = stream
        self._layout = layout
        self._experts = experts

    @property
    def token_parts(self) -> int:
        """In how many parts the tokens of a sample are sent."""
        return self._layout.token_parts

    @property
    def signal(self) -> signal_pb2.Signal | None:
        """Newest signal, on the process that follows it."""
        return None if self._stream is None else self._stream.signal

    def observe(
        self,
        *,
        step: int,
        group: str,
        sample_ids_N: NDArray[np.int64],
        arrays: HostReading,
        visits_N: NDArray[np.int32] | None,
    ) -> None:
        """Send what is held here of n samples of a group."""
        layout = self._layout
        if self._stream is None or not layout.observes:
            return
        weights: ArrayLike = arrays.weights_NLK
        target_weights: ArrayLike | None = arrays.target_weights_NLK
        if layout.layers == ():
            # A last stage without routed layers: the losses alone.
            weights = np.empty((len(sample_ids_N), 0, self._experts), np.float32)
            target_weights = None if target_weights is None else weights
        targets_N = arrays.targets_N
        shared = targets_N is not None and bool((targets_N >= 0).any())
        self._stream.observe(
            step=step,
            group=group,
            sample_ids=sample_ids_N,
            weights=weights,
            losses=arrays.losses_N,
            token_counts=arrays.tokens_N,
            target_token_counts=arrays.target_tokens_N,
            target_weights=target_weights,
            targets=targets_N if shared else None,
            visits=visits_N,
            layers=layout.layers,
            token_part=layout.token_part,
            token_parts=layout.token_parts,
        )

    def geometry(self, *, step: int, gram_self: ArrayLike, gram_next: ArrayLike) -> None:
        """Send the inner products of all expert embeddings."""
        if self._stream is not None:
            self._stream.geometry(step=step, gram_self=gram_self, gram_next=gram_next)

    def flush(self, timeout: float) -> None:
        """Wait until all that was sent is acknowledged, `timeout` seconds at most."""
        if self._stream is not None:
            self._stream.flush(timeout)

    def watermark(self, step: int) -> None:
        """Say that all of this process up to `step` is sent."""
        if self._stream is not None:
            self._stream.watermark(step)

    def register_checkpoint(self, *, step: int, tag: str) -> None:
        """Make a checkpoint known."""
        if self._stream is not None:
            self._stream.register_checkpoint(step=step, tag=tag)

    def close(self, timeout: float) -> None:
        """Deliver what is left within `timeout` seconds."""
        if self._stream is not None:
            self._stream.close(timeout)
