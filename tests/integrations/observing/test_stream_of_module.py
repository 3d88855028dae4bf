"""Stream mode on a plain module: compiled, copied, pickled."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from pathwatch.integrations.observing import Settings, Stream, Watch
from pathwatch.integrations.pytorch import ModuleJob

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))


class Layer(nn.Module):
    """All experts' outputs, weighted by a linear router."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4, bias=False)
        self.experts = nn.Linear(8, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.gate(x).softmax(-1)
        return x + (self.experts(x).unflatten(-1, (4, 8)) * p[..., None]).sum(-2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.layers = nn.Sequential(Layer(), Layer())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(self.embedding(tokens))


class Training:
    """Steps of a model under a watch."""

    def __init__(self, model: nn.Module, **stream: object) -> None:
        self.model = model
        self.steps = 0
        mode = Stream(window_steps=4, interval=2, **{"groups": lambda inputs: "a", **stream})
        self.watch = Watch(ModuleJob(model, lambda: self.steps), Settings(run="r", stream=mode))
        self.watch.begin()

    def step(self, **more: object) -> torch.Tensor:
        """Routing weights [B, K] of the first layer that the step is to see."""
        parts = getattr(self.model, "_orig_mod", self.model)
        weights = (parts.embedding(TOKENS) @ parts.layers[0].gate.weight.T).softmax(-1).mean(1)
        self.model(TOKENS, **more).square().mean().backward()
        self.steps += 1
        self.watch.after_step()
        return weights.detach()


@pytest.mark.parametrize(
    ("when", "fullgraph"), [("before", True), ("wrapped", False), ("layers", False), ("after", True)]
)
def test_a_compiled_model_is_read_uncompiled(streams: list, when: str, fullgraph: bool) -> None:
    training, compiled_frames = train_compiled(when, fullgraph=fullgraph, uncompiled=True)
    observed = streams[0].of("observe")
    assert [event["step"] for event in observed] == [0, 2, 4, 6]
    np.testing.assert_allclose(observed[-1]["weights"][:, 0], training, atol=1e-6)
    assert compiled_frames[0] == compiled_frames[1] > 0, "nothing is compiled anew for being observed"


@pytest.mark.parametrize("when", ["before", "in an observed pass", "after"])
def test_a_compiled_model_is_said_once_not_to_be_read(
    streams: list, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    train_compiled(when, fullgraph=True, uncompiled=False)
    # Compiled after the first step: that one could be read.
    assert [event["step"] for event in streams[0].of("observe")] == ([0] if when == "after" else [])
    assert caplog.text.count("is read with Stream(uncompiled=True)") == 1
    assert caplog.text.count("routed layers 0, 1 gave nothing") == 1


def train_compiled(when: str, *, fullgraph: bool, uncompiled: bool) -> tuple[torch.Tensor, tuple[int, int]]:
    """Weights that the last step was to see, and frames compiled in the first steps and in all."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    torch.manual_seed(0)
    backend = CompileCounterWithBackend("aot_eager")
    model: nn.Module = Model()
    if when == "wrapped":
        model = torch.compile(model, backend=backend, fullgraph=fullgraph)
    elif when != "after":
        for module in model.layers if when == "layers" else [model]:
            module.compile(backend=backend, fullgraph=fullgraph)
    if when not in ("after", "in an observed pass"):
        model(TOKENS)  # what is compiled here knows of no hooks
    training = Training(model, uncompiled=uncompiled)
    for number in range(7):
        if when == "after" and number == 1:
            model.compile(backend=backend, fullgraph=fullgraph)
        weights = training.step()
        if number == 3:
            early = backend.frame_count
    training.watch.close()
    assert model(TOKENS).shape == (4, 6, 8)
    return weights, (early, backend.frame_count)


def test_keywords_of_ours_do_not_have_the_model_compiled_anew(streams: list) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model, backend = Model(), CompileCounterWithBackend("eager")
    model.compile(backend=backend)
    training = Training(model, groups="kind", uncompiled=True)
    for number in range(6):
        training.step(kind=[f"a{number}"] * 4)
    training.watch.close()
    assert backend.frame_count == 1
    assert [event["group"] for event in streams[0].of("observe")] == ["a0", "a2", "a4"]


def test_a_copy_is_not_watched(streams: list) -> None:
    """As for a moving average of the weights. Saving the whole module works, too."""
    training = Training(Model(), groups="kind")
    twin = copy.deepcopy(training.model)
    twin(TOKENS, kind=["b"] * 4)
    training.step(kind=["a"] * 4)
    file = io.BytesIO()
    torch.save(training.model, file)
    file.seek(0)
    torch.load(file, weights_only=False)(TOKENS, kind=["b"] * 4)
    training.watch.close()
    assert [event["group"] for event in streams[0].of("observe")] == ["a"]
    assert "_compiled_call_impl" not in twin.__dict__


def test_closing_leaves_the_module_as_it_was(streams: list) -> None:
    model = Model()
    compiled: list[int] = []

    def call(*args: object, **kwargs: object) -> object:
        compiled.append(1)
        return model._call_impl(*args, **kwargs)

    for own in (None, call):
        model._compiled_call_impl = own
        training = Training(model, groups="kind")
        training.step(kind="a")
        training.watch.close()
        assert model._compiled_call_impl is own
        assert not model._forward_pre_hooks
        with pytest.raises(TypeError, match="kind"):
            model(TOKENS, kind="a")
    assert len(compiled) == 2


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What one test compiled is no other's."""
    yield
    torch._dynamo.reset()


def test_keywords_are_kept_from_a_model_that_is_not_observed(streams: list) -> None:
    model = Model()
    settings = Settings(run="r", stream=Stream(window_steps=1, groups="kind"), enabled=False)
    watch = Watch(ModuleJob(model, lambda: 0), settings)
    assert model(TOKENS, kind="a").shape == (4, 6, 8)
    watch.close()
    with pytest.raises(TypeError, match="kind"):
        model(TOKENS, kind="a")
