"""Rounds of a model's size, encoded before they are sent: the sender is not what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bench.window.windows import Model, round_of
from pathwatch.client.tensors import to_tensor
from pathwatch.server.metrics.window import WindowArrays
from pathwatch.v1 import routing_pb2, run_pb2

_PIECE_BYTES = 256 << 10
"""Of routing weights in a message at most, as the client sends them."""


def windows(model: Model, *, groups: int, samples: int) -> Mapping[str, WindowArrays]:
    """The first groups and samples of a round of the model's, without targets, as of language modelling."""
    return {
        name: replace(
            window,
            sample_ids_N=window.sample_ids_N[:samples],
            losses_N=window.losses_N[:samples],
            weights_NLK=window.weights_NLK[:samples],
            visits_N=None if window.visits_N is None else window.visits_N[:samples],
            tokens_N=window.tokens_N[:samples],
        )
        for name, window in list(round_of(model, targets=False).items())[:groups]
    }


class EncodedRound:
    """Its messages but for their sequence and step, which are put before."""

    def __init__(self, model: Model, *, groups: int, samples: int) -> None:
        self.topology = run_pb2.Topology(layers=model.layers, experts=model.experts)
        self.groups = groups
        piece = max(1, _PIECE_BYTES // (2 * model.layers * model.experts))
        self._tails = [
            _encoded(window, first, first + piece)
            for window in windows(model, groups=groups, samples=samples).values()
            for first in range(0, samples, piece)
        ]
        self.nbytes = sum(map(len, self._tails))
        """Of all of its messages."""

    def messages(self, step: int, after: int) -> list[bytes]:
        """Those of a step, with the sequences that come after `after`."""
        # Two serialized messages in a row are one message: their fields are merged.
        return [
            routing_pb2.StreamRoutingRequest(
                sequence=sequence, batch=routing_pb2.ObservationBatch(step=step)
            ).SerializeToString()
            + tail
            for sequence, tail in enumerate(self._tails, start=after + 1)
        ]


def _encoded(window: WindowArrays, first: int, last: int) -> bytes:
    batch = routing_pb2.ObservationBatch(
        group=window.group,
        sample_ids=to_tensor(window.sample_ids_N[first:last]),
        losses=to_tensor(window.losses_N[first:last].astype(np.float32)),
        weights=to_tensor(window.weights_NLK[first:last].astype(np.float16)),
    )
    return routing_pb2.StreamRoutingRequest(batch=batch).SerializeToString()
