"""Losses token by token: the model's own, unchanged to the bit, else computed again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.nn.functional import cross_entropy as plain_cross_entropy

from pathwatch.integrations.capture import keeping_losses, matching_losses
from pathwatch.integrations.capture.losses import recomputed_losses

B, S, V = 3, 5, 11
GENERATOR = torch.Generator().manual_seed(4)
LOGITS = torch.randn(B * S, V, generator=GENERATOR) * 3
LABELS = torch.where(
    torch.rand(B * S, generator=GENERATOR) < 0.3, -100, torch.randint(V, (B * S,), generator=GENERATOR)
)


def oracle(logits_TV: torch.Tensor, labels_T: torch.Tensor) -> list[float]:
    rows = logits_TV.double().exp()
    return [
        0.0 if label == -100 else -(row[label] / row.sum()).log().item()
        for row, label in zip(rows, labels_T.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("autocast", [False, True])
def test_loss_and_gradient_are_the_same_to_the_bit(
    dtype: torch.dtype, reduction: str, autocast: bool
) -> None:
    def run() -> tuple[torch.Tensor, torch.Tensor]:
        logits = LOGITS.to(dtype, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = functional.cross_entropy(logits, LABELS, reduction=reduction)
        loss.square().sum().backward()
        assert logits.grad is not None
        return loss.detach(), logits.grad

    expected_loss, expected_gradient = run()
    with keeping_losses(B, S) as kept:
        loss, gradient = run()
    assert loss.dtype == expected_loss.dtype
    assert torch.equal(loss, expected_loss)
    assert torch.equal(gradient, expected_gradient)
    # Half precision under autocast is left alone: there each half would be given its own precision.
    assert len(kept) == (0 if autocast and dtype == torch.bfloat16 else 1)
    for call in kept:
        assert call.losses_T.dtype == torch.float32
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        assert call.losses_T.tolist() == pytest.approx(oracle(LOGITS.to(dtype), LABELS), abs=tolerance)
        assert call.labels_T.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    "more",
    [
        {"weight": torch.ones(V)},
        {"label_smoothing": 0.1},
        {"size_average": False},
        {"target": torch.rand(B * S, V)},
        {"input": LOGITS[:7], "target": LABELS[:7]},
        {"input": LOGITS.reshape(B, S, V).mT, "target": LABELS.reshape(B, S)},
    ],
)
@pytest.mark.filterwarnings("ignore:size_average")
def test_other_calls_are_left_alone(more: dict[str, Any]) -> None:
    call = {"input": LOGITS, "target": LABELS, **more}
    expected = plain_cross_entropy(**call)
    with keeping_losses(B, S) as kept:
        assert torch.equal(functional.cross_entropy(**call), expected)
    assert not kept


def test_errors_are_those_of_the_call_itself() -> None:
    with keeping_losses(B, S) as kept:
        with pytest.raises(TypeError, match="cross_entropy"):
            functional.cross_entropy(LOGITS)  # type: ignore[call-arg]
        with pytest.raises(IndexError, match="out of bounds"):
            functional.cross_entropy(LOGITS, torch.full((B * S,), V))
    assert not kept


def test_other_threads_are_left_alone_and_nothing_stays() -> None:
    with keeping_losses(B, S) as kept:
        thread = threading.Thread(target=lambda: functional.cross_entropy(LOGITS, LABELS))
        thread.start()
        thread.join()
        torch.nn.CrossEntropyLoss()(LOGITS, LABELS)
        assert len(kept) == 1
    assert functional.cross_entropy is plain_cross_entropy
    with pytest.raises(RuntimeError, match="model"), keeping_losses(B, S):
        raise RuntimeError("the model's own")
    assert functional.cross_entropy is plain_cross_entropy


def test_an_ignore_index_beyond_the_vocabulary() -> None:
    labels = LABELS.where(LABELS >= 0, V + 3)
    with keeping_losses(B, S) as kept:
        functional.cross_entropy(LOGITS, labels, ignore_index=V + 3)
    assert kept[0].labels_T.tolist() == LABELS.tolist()


def test_the_call_with_the_labels_told_is_found() -> None:
    """A multi-token head calls first, labels one further; older models leave out the last token of a row."""
    labels_BS = torch.randint(V, (B, S), generator=GENERATOR)
    labels_BS[:, -1] = -100
    logits_BSV = LOGITS.reshape(B, S, V)
    with keeping_losses(B, S) as kept:
        functional.cross_entropy(LOGITS.flip(0), labels_BS.roll(-1, 1).flatten())
        functional.cross_entropy(logits_BSV[:, :-1].reshape(-1, V), labels_BS[:, :-1].reshape(-1))
    expected = oracle(LOGITS, labels_BS.flatten())
    assert matching_losses(kept, labels_BS).flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert matching_losses(kept[:1], labels_BS).isnan().all()
    borders = labels_BS.clone()
    borders[:, 2] = -100
    assert not matching_losses(kept, borders).isnan().any()


def test_losses_computed_again_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathwatch.integrations.capture.losses._CHUNK_ELEMENTS", 4 * V)
    logits = LOGITS.reshape(B, S, V).requires_grad_()
    losses_BS = recomputed_losses(logits, LABELS.reshape(B, S))
    assert not losses_BS.requires_grad
    assert losses_BS.flatten().tolist() == pytest.approx(oracle(LOGITS, LABELS), abs=1e-5)


def test_labels_that_are_no_class_are_not_looked_up() -> None:
    """On an accelerator that would abort the process."""
    labels_BS = LABELS.reshape(B, S).clone()
    labels_BS[0, 0], labels_BS[0, 1] = V, -1
    losses_BS = recomputed_losses(LOGITS.reshape(B, S, V), labels_BS)
    assert losses_BS[0, :2].isnan().all()
    assert losses_BS.isnan().sum() == 2
    with pytest.raises(ValueError, match="do not fit labels"):
        recomputed_losses(LOGITS.reshape(S, B, V), labels_BS)
