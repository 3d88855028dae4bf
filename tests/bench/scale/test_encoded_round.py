"""Messages that are put together from bytes are the ones meant."""

from __future__ import annotations

import numpy as np

from bench.scale.messages import EncodedRound, windows
from bench.window.windows import Model
from pathwatch.v1 import routing_pb2

SMALL = Model("small", 2, 256)
GROUPS, SAMPLES = 2, 300


def test_every_sample_of_a_round_is_sent_once_under_its_step() -> None:
    encoded = EncodedRound(SMALL, groups=GROUPS, samples=SAMPLES)
    messages = [routing_pb2.StreamRoutingRequest.FromString(data) for data in encoded.messages(7, after=3)]

    assert [message.sequence for message in messages] == list(range(4, 4 + len(messages)))
    assert {message.batch.step for message in messages} == {7}
    # 256 KiB hold 256 samples of 1 KiB, so that each group comes in two pieces.
    assert [message.batch.sample_ids.shape[0] for message in messages] == [256, 44] * GROUPS
    for name, window in windows(SMALL, groups=GROUPS, samples=SAMPLES).items():
        pieces = [message.batch for message in messages if message.batch.group == name]
        ids_N = np.concatenate([np.frombuffer(piece.sample_ids.data, "<i8") for piece in pieces])
        weights_NLK = np.concatenate(
            [np.frombuffer(piece.weights.data, "<f2").reshape(piece.weights.shape) for piece in pieces]
        )
        np.testing.assert_array_equal(ids_N, window.sample_ids_N)
        np.testing.assert_array_equal(weights_NLK, window.weights_NLK.astype(np.float16))
