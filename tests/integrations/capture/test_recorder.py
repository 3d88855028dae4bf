"""What a recording must not change of a forward pass, and what a forward pass must not change of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from pathwatch.integrations.capture import (
    Recording,
    Router,
    RouterRecorder,
    ScoreKind,
    TokenSelection,
    find_routers,
    linear_scores,
)

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(7))
ALL = TokenSelection.of_batch(rows=4, length=6)


def nested(run: Callable, x: torch.Tensor, use_reentrant: bool) -> torch.Tensor:
    inner = functools.partial(checkpoint, run, use_reentrant=use_reentrant)
    return checkpoint(inner, x, use_reentrant=use_reentrant)


def deepspeed_checkpoint(run: Callable, x: torch.Tensor) -> torch.Tensor:
    from deepspeed import checkpointing

    checkpointing.configure(None, partition_activations=False)
    return checkpointing.checkpoint(run, x)


CHECKPOINTS = {
    "reentrant": functools.partial(checkpoint, use_reentrant=True),
    "not reentrant": functools.partial(checkpoint, use_reentrant=False),
    "nested reentrant": functools.partial(nested, use_reentrant=True),
    "nested not reentrant": functools.partial(nested, use_reentrant=False),
    "deepspeed": deepspeed_checkpoint,
}


def linear_router(gate: nn.Linear, clean_at: nn.Module | None = None) -> Router:
    """Read by computing its scores again."""
    return Router(
        name="gate",
        module=gate,
        weight=gate.weight,
        read=linear_scores(gate),
        kind=ScoreKind.SOFTMAX_LOGITS,
        clean_at=clean_at,
    )


def means_of(recording: Recording) -> torch.Tensor:
    return torch.stack([means[:, 0] for means in recording.real_LBMK if means is not None], 1)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_two_checkpointed_micro_batches_in_flight(make_model: Callable, kind: str) -> None:
    """Both forward passes, then both backward passes, the recomputations of which must not be counted."""
    batches = [TOKENS, TOKENS.flip(0)]

    def train(how: Callable | None, *, recorded: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model = make_model(checkpoint=how, k=3)
        model.dropout.p = 0.0
        model.embedding.register_forward_hook(lambda _, args, out: out.requires_grad_())
        recorder = RouterRecorder(find_routers(model))
        recordings, losses = [], []
        for tokens in batches:
            recording = recorder.begin(ALL)
            if not recorded:
                recorder.end()
            losses.append(cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()))
            recorder.end()
            recordings.append(recording)
        early = [means_of(recording) for recording in recordings] if recorded else []
        for loss in losses:
            loss.backward()
        if recorded:
            assert all(torch.equal(means_of(r), before) for r, before in zip(recordings, early, strict=True))
        return early, [parameter.grad for parameter in model.parameters()]

    means, gradients = train(CHECKPOINTS[kind], recorded=True)
    _, unwatched = train(CHECKPOINTS[kind], recorded=False)
    expected, _ = train(None, recorded=True)
    assert all(torch.equal(own, plain) for own, plain in zip(gradients, unwatched, strict=True))
    for own, plain in zip(means, expected, strict=True):
        torch.testing.assert_close(own, plain, atol=1e-6, rtol=0)
    assert not torch.equal(means[0], means[1])


def test_selective_checkpointing_hands_out_no_results_of_ours() -> None:
    """It keeps the results of matrix products, and hands them out again by their order."""
    gate, experts = nn.Linear(5, 4, bias=False), nn.Linear(5, 20, bias=False)

    def run(x: torch.Tensor) -> torch.Tensor:
        p = gate(x).softmax(-1)
        return x + (experts(x).unflatten(-1, (4, 5)) * p[..., None]).sum(-2).tanh()

    def policy(context: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
        keep = op == torch.ops.aten.mm.default
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    recorder = RouterRecorder([linear_router(gate)])
    gradients = []
    for recorded in (False, True):
        recording = recorder.begin(ALL)
        if not recorded:
            recorder.end()
        y = checkpoint(run, x, use_reentrant=False, context_fn=contexts)
        recorder.end()
        gradients.append(torch.autograd.grad(y.square().sum(), [x, gate.weight, experts.weight]))
    assert all(torch.equal(own, plain) for own, plain in zip(*gradients, strict=True))
    expected = (x @ gate.weight.T).softmax(-1).reshape(4, 6, 4).mean(1)
    torch.testing.assert_close(recording.real_LBMK[0][:, 0], expected.detach(), atol=1e-6, rtol=0)


def test_autocast_does_not_round_the_reading(make_model: Callable) -> None:
    """Selections with padding take more than a mean; in bfloat16 it would be off by 1e-3."""
    model = make_model(k=3).eval()
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [0] * 3 + [1] * 3, [1] * 5 + [0]])
    segments = torch.tensor([[1, 1, 1, 2, 2, 2]] * 4)
    recorder = RouterRecorder(find_routers(model))
    hidden = []
    handle = model.layers[0].register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    for more in ({"attention_mask_BS": mask}, {"segment_ids_BS": segments, "samples_per_row": 2}, {}):
        selection = TokenSelection.of_batch(rows=4, length=6, **more)
        with recorder.recording(selection) as recording, torch.autocast("cpu", torch.bfloat16):
            model(TOKENS)
        weight = model.layers[0].deepspeed_moe.gate.wg.weight
        p_BSK = (hidden.pop().double() @ weight.T.double()).softmax(-1)
        for m, real_BS in enumerate(selection.real_BMS.unbind(1)):
            for b in range(4):
                expected = p_BSK[b][real_BS[b]].mean(0)
                found = recording.real_LBMK[0][b, m].double()
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    handle.remove()


def test_a_model_that_raises_leaves_nothing_open(make_model: Callable) -> None:
    model = make_model()
    recorder = RouterRecorder(find_routers(model))
    with pytest.raises(IndexError), recorder.recording(ALL):
        model(TOKENS + 16)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_copy_of_the_model_made_meanwhile_is_not_read(make_model: Callable) -> None:
    """As for a moving average of the weights: its passes are not training's."""
    model = make_model().eval()
    recorder = RouterRecorder(find_routers(model))
    recorder.begin(ALL)
    recorder.end()
    twin = copy.deepcopy(model)
    with recorder.recording(ALL) as recording, torch.no_grad():
        twin(TOKENS.flip(0))
        assert recording.real_LBMK == [None, None]
        model(TOKENS)
    assert all(means is not None for means in recording.real_LBMK)


def test_routers_may_be_renewed_but_not_changed(make_model: Callable) -> None:
    recorder = RouterRecorder(find_routers(make_model()))
    with pytest.raises(ValueError, match=r"had \[4, 4\] experts, and now \[4, 4, 4\]"):
        recorder.renew(find_routers(make_model(layers=3)))
    other = make_model().eval()
    recorder.renew(find_routers(other))
    with recorder.recording(ALL) as recording, torch.no_grad():
        other(TOKENS)
    assert isinstance(recording.real_LBMK[1], torch.Tensor)


def test_in_place_noise_before_a_router_is_kept_out(make_model: Callable) -> None:
    """What enters `clean_at` is copied, because noise is added to it in place."""

    class Noisy(nn.Module):
        def __init__(self, gate: nn.Module) -> None:
            super().__init__()
            self.gate = gate

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gate(x.mul_(1.5))

    gate = nn.Linear(5, 4, bias=False)
    noisy = Noisy(gate)
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    expected = (x @ gate.weight.T).softmax(-1).reshape(4, 6, 4).mean(1)
    with RouterRecorder([linear_router(gate, clean_at=noisy)]).recording(ALL) as recording, torch.no_grad():
        noisy(x)
    torch.testing.assert_close(recording.real_LBMK[0][:, 0], expected.detach(), atol=1e-6, rtol=0)
