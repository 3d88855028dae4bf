"""What else people take routing from, as variants."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bench.overhead.job import Job


class RouterLogits:
    """transformers' own `output_router_logits=True`, copied to the host after every step."""

    name = "output_router_logits"
    every = 1
    gives = "router logits of every token and layer; computes the balance loss, too"
    package = __name__

    def __init__(self) -> None:
        self.taken = 0
        self.copied: list[Tensor] = []

    def attach(self, job: Job) -> None:
        """Nothing to do."""

    def extra(self) -> Mapping[str, Any]:
        """The flag."""
        return {"output_router_logits": True}

    def after_step(self, output: object) -> None:
        """Copy; a tensor that is on the host already, as here, must be told to be."""
        logits = output.router_logits  # type: ignore[attr-defined] # transformers' output
        self.copied = [logits_TK.detach().to("cpu", copy=True) for logits_TK in logits]
        self.taken += 1

    def settle(self) -> None:
        """Nothing to wait for."""

    def detach(self) -> None:
        """The copies are let go."""
        self.copied = []


class Moewatch:
    """PyPI's `moewatch`, with the loop of its README; `sample_every=10` is its default."""

    package = "moewatch"

    def __init__(self, every: int) -> None:
        self.name = f"moewatch every {every}"
        self.every = every
        self.gives = "load and entropy of each layer's experts; nothing per sample"
        self._watcher: Any = None
        self._steps = 0

    @property
    def taken(self) -> int:
        """Router calls taken in; analyses, every 100 steps, make no difference to it."""
        return 0 if self._watcher is None else int(self._watcher._collector.total_events)

    def attach(self, job: Job) -> None:
        """What it collected stays from block to block, as in a run of its own; its hooks come and go."""
        if self._watcher is not None:
            self._watcher._hook_manager.attach()
            return
        from moewatch import MoEWatch, WatchConfig  # type: ignore[import-untyped]

        # Left to itself it takes OLMoE's MoE blocks for routers and their hidden states for logits.
        routers = [name for name, _ in job.module.named_modules() if name.endswith(".gate")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sampling every step costs more
            config = WatchConfig(sample_every=self.every, output="silent", router_modules=routers)
        self._watcher = MoEWatch(job.module, config=config).start()

    def extra(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def after_step(self, output: object) -> None:
        """Its tick."""
        self._watcher.step(self._steps)
        self._steps += 1

    def settle(self) -> None:
        """Nothing to wait for."""

    def detach(self) -> None:
        """Take its hooks off."""
        self._watcher._hook_manager.detach()
