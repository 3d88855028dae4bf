"""An accelerator made of host memory: its tensors say that they are elsewhere, and reading them is counted.

Tensors of this device compute on the CPU, through autograd and all of PyTorch, as a wrapper subclass.
Whatever would have made the host wait for a real device is counted as blocking: reading a value, a copy that
is not asynchronous or not into pinned memory, an operation whose shape depends on values, waiting for an
event that has not passed. The device lags: an event passes only once the step it was recorded in is over.

It registers a device with PyTorch for the rest of the process: use it in a process of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "counted"
_PASSED_THROUGH = sys.stdlib_module_names - {"__main__"} | {"torch"}
_READS_VALUES = {
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::allclose",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
}
"""Operations whose result, or its shape, the host must know."""


class _Backend(_DummyBackendModule):  # type: ignore[misc] # PyTorch is not typed here
    """What `torch.counted` offers."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Autocast asks."""
        return [torch.bfloat16]

    def get_rng_state(self, device: object) -> Tensor:
        """Of the host's generator: this device has none of its own."""
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object) -> None:
        """Nothing to do: the host's is put back by whoever took it."""


class Place(NamedTuple):
    """What was done, and whose code asked for it."""

    operation: str
    module: str
    """Name of the innermost module that is neither PyTorch's nor Python's own."""
    line: int


class Accelerator:
    """The device and its counts. Only one per process."""

    def __init__(self) -> None:
        _setup_privateuseone_for_python_backend(NAME, _Backend())
        self.device = torch.device(NAME, 0)
        self.blocking: Counter[Place] = Counter()
        """How often the host waited for the device."""
        self.copies: Counter[Place] = Counter()
        """Asynchronous copies to the host."""
        self.launched: Counter[Place] = Counter()
        """Operations on the device."""
        self.step = 0
        """Steps that the device has finished."""
        self._pinned: dict[int, Tensor] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """In here tensors can be made on the device, and events and pinned memory are its own."""
        accelerator = self

        class Event:
            """Stands in for `torch.Event`."""

            def __init__(self, *arguments: Any, **options: Any) -> None:
                self._recorded = -1

            def record(self, stream: object = None) -> None:
                self._recorded = accelerator.step

            def query(self) -> bool:
                return self._recorded < accelerator.step

            def synchronize(self) -> None:
                if not self.query():
                    accelerator.wait("Event.synchronize")

        with ExitStack() as patches:
            patches.enter_context(patch.object(torch, "Event", Event))
            for module in (torch.accelerator, torch.cuda):
                waiting = lambda *_, **__: accelerator.wait("synchronize")  # noqa: E731
                patches.enter_context(patch.object(module, "synchronize", waiting))
            patches.enter_context(_Dispatch(self))
            yield

    def move(self, module: nn.Module) -> nn.Module:
        """A module with its parameters and buffers on the device."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    moved = OnDevice(parameter.detach(), self)
                    part._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = OnDevice(buffer, self)
        return module

    def to_device(self, tensor: Tensor) -> Tensor:
        """A host tensor on the device, uncounted: training's own doing."""
        return OnDevice(tensor, self)

    def wait(self, operation: str) -> None:
        """Count a wait of the host."""
        self.blocking[_place(operation)] += 1

    def reset(self) -> None:
        """Count anew; the device has finished the step."""
        self.step += 1
        for counts in (self.blocking, self.copies, self.launched):
            counts.clear()

    def run(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One operation of PyTorch, computed on the host."""
        options = dict(kwargs)
        name = operation._schema.name
        if name == "aten::is_pinned":
            return self._is_pinned(args[0])
        if name in {"aten::pin_memory", "aten::_pin_memory"}:
            return self._pin(args[0].clone())
        given = [item for item in _flat((args, options)) if isinstance(item, Tensor)]
        from_device = any(isinstance(item, OnDevice) for item in given)
        target = options.get("device")
        to_device = torch.device(target).type == NAME if target is not None else from_device
        if to_device and target is not None:
            options["device"] = "cpu"
        pin = bool(options.pop("pin_memory", False))
        self._count(name, args, options, from_device=from_device, to_device=to_device)
        if from_device or to_device:
            self.launched[_place(name)] += 1
        result = operation(*tree_map(_on_host, args), **tree_map(_on_host, options))
        if operation._schema.is_mutable and isinstance(result, Tensor):
            return args[0]
        if pin:
            self._pin(result)
        if not to_device:
            return result
        return tree_map(lambda item: OnDevice(item, self) if isinstance(item, Tensor) else item, result)

    def _count(
        self,
        name: str,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        *,
        from_device: bool,
        to_device: bool,
    ) -> None:
        if name in _READS_VALUES and from_device:
            self.wait(name)
        elif name in {"aten::index", "aten::index_put", "aten::index_put_"} and any(
            isinstance(index, OnDevice) and index.dtype == torch.bool for index in args[1]
        ):
            self.wait(f"{name} by a mask")
        elif name == "aten::_to_copy" and from_device != to_device:
            # To the host PyTorch pins the memory of an asynchronous copy by itself.
            asynchronous = bool(options.get("non_blocking")) and (from_device or self._is_pinned(args[0]))
            self._copied(name, asynchronous=asynchronous, to_host=from_device)
        elif name == "aten::copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            to_host = not isinstance(args[0], OnDevice)
            asynchronous = len(args) > 2 and bool(args[2]) and self._is_pinned(args[0 if to_host else 1])
            self._copied(name, asynchronous=asynchronous, to_host=to_host)

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned

    def _pin(self, tensor: Tensor) -> Tensor:
        # Kept for ever: memory that is not pinned must not come to lie there.
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def _copied(self, name: str, *, asynchronous: bool, to_host: bool) -> None:
        if not asynchronous:
            self.wait(f"{name} to the {'host' if to_host else 'device'}")
        elif to_host:
            self.copies[_place(name)] += 1


class OnDevice(Tensor):  # type: ignore[misc] # PyTorch is not typed here
    """A tensor that says it is on the device."""

    held: Tensor
    accelerator: Accelerator

    @staticmethod
    def __new__(cls, held: Tensor, accelerator: Accelerator) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=accelerator.device,
            requires_grad=held.requires_grad,
        )
        made.held = held.detach()
        made.accelerator = accelerator
        return made

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        accelerator = next(item.accelerator for item in _flat((args, kwargs or {})) if isinstance(item, cls))
        return accelerator.run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        """Waits for the device."""
        self.accelerator.wait("tolist")
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"


class _Dispatch(TorchDispatchMode):  # type: ignore[misc] # PyTorch is not typed here
    """Operations that make tensors, which no argument of theirs brings to the device."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self._accelerator = accelerator

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._accelerator.run(operation, args, kwargs or {})


def _place(operation: str) -> Place:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        top = module.partition(".")[0]
        if module != __name__ and top not in _PASSED_THROUGH:
            return Place(operation, module, frame.f_lineno)
        frame = frame.f_back
    return Place(operation, "autograd", 0)


def _on_host(item: Any) -> Any:
    return item.held if isinstance(item, OnDevice) else item


def _flat(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping):
        tree = tuple(tree.values())
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from _flat(item)
    else:
        yield tree
