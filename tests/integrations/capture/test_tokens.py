"""Which tokens count for which sample: padding, ignored labels, shifting, packing; against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from pathwatch.integrations.capture import Recording, TokenSelection, reduce_reading
from pathwatch.integrations.observing.host_reading import unpack


def read(selection: TokenSelection, layers: list[torch.Tensor], logits: torch.Tensor | None):
    recording = Recording(selection, [None] * len(layers), [None] * len(layers))
    for layer, weights_TK in enumerate(layers):
        recording.take(layer, weights_TK)
    reading = reduce_reading(recording, logits)
    return unpack(reading, reading.packed_NX.numpy())


@settings(max_examples=50, deadline=None)
@given(data=st.data(), shift=st.booleans())
def test_means_and_losses_equal_plain_loops(data: st.DataObject, shift: bool) -> None:
    B, S, K, V, L = 3, 5, 4, 6, 2
    lengths = data.draw(st.lists(st.integers(2, S), min_size=B, max_size=B))
    ignored = data.draw(st.lists(st.booleans(), min_size=B * S, max_size=B * S))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    mask = torch.tensor([[int(s < n) for s in range(S)] for n in lengths])
    labels = torch.randint(V, (B, S), generator=generator)
    labels[torch.tensor(ignored).reshape(B, S)] = -100
    layers = [torch.rand(B * S, K, generator=generator).softmax(-1) for _ in range(L)]
    logits = torch.randn(B, S, V, generator=generator)
    selection = TokenSelection.of_batch(
        rows=B, length=S, labels_BS=labels, attention_mask_BS=mask, shift_labels=shift
    )
    arrays = read(selection, layers, logits)
    for b in range(B):
        real = list(range(lengths[b]))
        predicts = {t: labels[b, t + 1] if shift else labels[b, t] for t in real if not shift or t + 1 < S}
        target = [t for t, label in predicts.items() if int(label) != -100]
        assert arrays.tokens_N[b] == len(real)
        assert arrays.target_tokens_N[b] == len(target)
        for layer in range(L):
            rows = layers[layer].reshape(B, S, K)[b]
            np.testing.assert_allclose(
                arrays.weights_NLK[b, layer], sum(rows[t] for t in real) / len(real), atol=1e-6
            )
            if target and arrays.target_weights_NLK is not None:
                # Plain: all tokens, also where other samples of the batch are not plain.
                told_apart = real if target == (real[:-1] if shift else real) else target
                expected = sum(rows[t] for t in told_apart) / len(told_apart)
                np.testing.assert_allclose(arrays.target_weights_NLK[b, layer], expected, atol=1e-6)
        if target:
            losses = [-log_softmax(logits[b, t], -1)[int(predicts[t])].item() for t in target]
            assert arrays.losses_N is not None
            assert arrays.losses_N[b] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert arrays.targets_N is not None
        assert arrays.targets_N[b] == (int(predicts[target[0]]) if len(target) == 1 else -1)


def test_shifted_labels_of_padding_carry_no_loss() -> None:
    """The last real token would predict padding, whose label is ignored."""
    labels = torch.tensor([[3, 4, 5, -100, -100]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    selection = TokenSelection.of_batch(
        rows=1, length=5, labels_BS=labels, attention_mask_BS=mask, shift_labels=True
    )
    assert selection.target_BMS.tolist() == [[[True, True, False, False, False]]]


@pytest.mark.parametrize("shift", [True, False])
def test_plain_pretraining_sends_one_selection(shift: bool) -> None:
    labels = torch.arange(8).reshape(2, 4)
    selection = TokenSelection.of_batch(rows=2, length=4, labels_BS=labels, shift_labels=shift)
    arrays = read(selection, [torch.full((8, 4), 0.25)], torch.zeros(2, 4, 9))
    assert arrays.target_weights_NLK is None


def test_prompt_tokens_make_target_tokens_differ() -> None:
    labels = torch.tensor([[-100, -100, 7], [-100, 5, 6]])
    weights = torch.eye(3).repeat(2, 1)
    arrays = read(TokenSelection.of_batch(rows=2, length=3, labels_BS=labels), [weights], None)
    assert arrays.losses_N is None
    assert arrays.target_weights_NLK is not None
    assert arrays.target_weights_NLK[0, 0].tolist() == [0, 0, 1]
    assert arrays.target_weights_NLK[1, 0].tolist() == [0, 0.5, 0.5]
    assert arrays.targets_N is not None
    assert arrays.targets_N.tolist() == [7, -1]


def test_packed_samples_do_not_mix() -> None:
    segments = torch.tensor([[1, 1, 2, 2, 0], [1, 1, 1, 0, 0]])
    labels = torch.tensor([[1, 2, 3, 4, -100], [5, 6, 7, -100, -100]])
    weights = torch.eye(5).repeat(2, 1)
    selection = TokenSelection.of_batch(
        rows=2, length=5, labels_BS=labels, segment_ids_BS=segments, samples_per_row=2, shift_labels=True
    )
    arrays = read(selection, [weights], torch.zeros(2, 5, 8))
    assert arrays.tokens_N.tolist() == [2, 2, 3, 0]
    # The second token of a sample would predict the first of the next: it carries no loss.
    assert arrays.target_tokens_N.tolist() == [1, 1, 2, 0]
    assert arrays.weights_NLK[:3, 0].tolist() == [
        [0.5, 0.5, 0, 0, 0],
        [0, 0, 0.5, 0.5, 0],
        pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0]),
    ]
    assert arrays.targets_N is not None
    assert arrays.targets_N[:2].tolist() == [2, 4]


def test_a_batch_that_is_not_the_one_that_ran_is_an_error() -> None:
    recording = Recording(TokenSelection.of_batch(rows=2, length=3), [None], [None])
    with pytest.raises(ValueError, match="saw 7 tokens, the batch has 2 rows of 3"):
        recording.take(0, torch.full((7, 4), 0.25))
