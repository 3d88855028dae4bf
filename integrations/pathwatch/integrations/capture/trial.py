"""Trying a router out: what it gives for known hidden states and weights, and whether it adds noise.

A copy is run, on the host, with random weights and without hooks: neither the model nor its random state nor
a sharding framework notices, and whatever a router's class is called, its behaviour shows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pathwatch.integrations.capture.code import names_used
from pathwatch.integrations.capture.routers import whole_shape

_TOKENS = 32
_SPREAD = 2.0
"""Standard deviation of the logits: wide enough to tell a softmax from a sigmoid."""

_RANDOM_FUNCTIONS = frozenset(
    (
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "uniform_",
        "normal_",
        "bernoulli",
        "exponential_",
        "rsample",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a router gave out for random hidden states."""

    twin: nn.Module
    """The copy that was run."""
    hidden_TD: Tensor
    evaluated: list[Tensor | None]
    """Items of the output in evaluation mode; None where an item is no tensor."""
    repeated: list[list[Tensor | None]]
    """The same again with other random states: once more in evaluation mode, twice in training mode."""
    called: frozenset[str]
    """Names of the submodules that were called; "" is the router itself."""


def try_router(module: nn.Module) -> Trial:
    """Run a copy of a router.

    Raises:
        ValueError: it has no weight matrix, or cannot be run on hidden states alone.
    """
    widths = dict.fromkeys(whole_shape(p)[1] for p in module.parameters() if len(whole_shape(p)) == 2)
    if not widths:
        raise ValueError("it has no weight with a row per expert")
    problem: Exception | None = None
    with _apart():
        twin = _twin(module)
        called = _note_calls(twin)
        for width in widths:
            hidden_TD = torch.randn(_TOKENS, width)
            # Some routers want [T, D], others [B, S, D].
            for shape in ((_TOKENS, width), (2, _TOKENS // 2, width)):
                try:
                    runs = [
                        _run(twin, hidden_TD.reshape(shape), training)
                        for training in (False, False, True, True)
                    ]
                except Exception as error:
                    problem = problem or error
                    continue
                return Trial(
                    twin=twin,
                    hidden_TD=hidden_TD,
                    evaluated=runs[0],
                    repeated=runs[1:],
                    called=frozenset(called),
                )
    raise ValueError(f"a copy of it cannot be run on hidden states alone ({problem})")


def noise_before(block: nn.Module, router: nn.Module, trial: Trial) -> bool:
    """Whether a block, in training, adds noise to the hidden states before its router sees them.

    Blocks that do something else before calling the router, or that cannot be run on hidden states alone,
    are judged by whether their code uses random numbers at all.

    Args:
        block: the parent of `router`.
        trial: of `router`.

    Raises:
        ValueError: it does, or may, and clean hidden states cannot be had.
    """
    with _apart():
        shell = _shell(block)
        for name, child in block.named_children():
            # Nothing but the router can be called.
            shell.add_module(name, trial.twin if child is router else nn.Module())
        handle = trial.twin.register_forward_pre_hook(_reached, with_kwargs=True, prepend=True)
        seen = [_seen_by_router(shell, trial.hidden_TD, training) for training in (False, True, True)]
        handle.remove()
    if any(hidden is None for hidden in seen):
        random = sorted(names_used(type(block)) & _RANDOM_FUNCTIONS)
        if random:
            raise ValueError(
                f"{type(block).__name__} may add noise before it ({', '.join(random)} in its code)"
            )
        return False
    if _alike(seen[1], seen[2]):
        return False
    if not _alike(seen[0], trial.hidden_TD):
        raise ValueError(f"{type(block).__name__} adds noise to changed hidden states before it")
    return True


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and torch.allclose(one, other)


class _Reached(Exception):  # noqa: N818 - not an error
    def __init__(self, hidden: Tensor | None) -> None:
        self.hidden = hidden


def _reached(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    raise _Reached(next((item for item in (*args, *kwargs.values()) if isinstance(item, Tensor)), None))


def _seen_by_router(block: nn.Module, hidden_TD: Tensor, training: bool) -> Tensor | None:
    block.train(training)
    try:
        block(hidden_TD.reshape(2, -1, hidden_TD.shape[1]).clone())
    except _Reached as reached:
        return None if reached.hidden is None else reached.hidden.reshape(-1, hidden_TD.shape[1])
    except Exception:
        return None
    return None


@contextmanager
def _apart() -> Iterator[None]:
    """Without gradients, mixed precision or a trace in the host's random state."""
    with torch.random.fork_rng([]), torch.no_grad(), torch.autocast("cpu", enabled=False):
        torch.manual_seed(0)
        yield


def _shell(module: nn.Module) -> nn.Module:
    """A module of the same class and settings, without parameters, children and hooks of its own."""
    # Not by its constructor, which wants arguments.
    shell: nn.Module = object.__new__(type(module))
    nn.Module.__init__(shell)
    own = {name: value for name, value in vars(module).items() if name not in vars(shell)}
    # Frameworks wrap `forward` on the instance; the class's own is tried.
    own.pop("forward", None)
    vars(shell).update(own)
    for name, buffer in module._buffers.items():
        random = buffer is not None and buffer.is_floating_point()
        shell.register_buffer(name, 0.1 * torch.randn(buffer.shape) if random else buffer)
    return shell


def _twin(module: nn.Module) -> nn.Module:
    """A copy of a module and its children with random weights on the host."""
    twin = _shell(module)
    for name, parameter in module._parameters.items():
        if parameter is None:
            twin.register_parameter(name, None)
            continue
        shape = whole_shape(parameter)
        scale = _SPREAD * shape[-1] ** -0.5 if len(shape) == 2 else 0.5
        twin.register_parameter(name, nn.Parameter(scale * torch.randn(shape), requires_grad=False))
    for name, child in module.named_children():
        twin.add_module(name, _twin(child))
    return twin


def _note_calls(twin: nn.Module) -> set[str]:
    called: set[str] = set()
    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda _module, _args, name=name: called.add(name))
    return called


def _run(twin: nn.Module, hidden: Tensor, training: bool) -> list[Tensor | None]:
    twin.train(training)
    _hidden, *others = list(inspect.signature(twin.forward).parameters.values())
    # The one thing besides hidden states that routers are given: a bias per expert.
    experts = max(whole_shape(p)[0] for p in twin.parameters() if p.ndim == 2)
    biases = {other.name: 0.1 * torch.randn(experts) for other in others if "bias" in other.name}
    output = twin(hidden.clone(), **biases)
    items = output if isinstance(output, tuple | list) else (output,)
    return [item.clone() if isinstance(item, Tensor) else None for item in items]
