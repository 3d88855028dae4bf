"""What is run beside training: nothing, pathwatch, and what else people take routing from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.overhead import models
from bench.overhead.job import Job
from bench.overhead.order import BASELINE
from pathwatch.client import RoutingStream
from pathwatch.integrations.observing import Probe, ProbeGroup, Stream, Watch, observer

WINDOW_STEPS = 500
PROBE_SAMPLES = 32


class Variant(Protocol):
    """One way to take routing data from a job. Attached for a block of steps at a time."""

    name: str
    every: int
    """Optimizer steps between two in which something is taken in; 0 = there is none."""
    gives: str
    """What one gets, in a few words."""
    package: str
    """Whose code its is."""

    @property
    def taken(self) -> int:
        """How often something was taken in so far."""

    def attach(self, job: Job) -> None:
        """Begin, or go on where the last block ended."""

    def extra(self) -> Mapping[str, Any]:
        """Arguments to add to the forward pass."""

    def after_step(self, output: object) -> None:
        """What the training script does after every step."""

    def settle(self) -> None:
        """Wait until what was begun by attaching is done."""

    def detach(self) -> None:
        """Leave the job as it was."""


class Without:
    """The job alone: the baseline; under another name the control, whose ratios to it should be 1."""

    every = 0
    gives = "nothing"
    package = "nobody"
    taken = 0

    def __init__(self, name: str = BASELINE) -> None:
        self.name = name

    def attach(self, job: Job) -> None:
        """Nothing to do."""

    def extra(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def after_step(self, output: object) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to wait for."""

    def detach(self) -> None:
        """Nothing to undo."""


class _CountedStream(RoutingStream):
    """The client's stream; counts what it is given, so that the steps of readings are known."""

    opened: list[_CountedStream] = []  # noqa: RUF012 (all of them, of the whole process)
    observed = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _CountedStream.opened.append(self)

    def observe(self, **arguments: Any) -> None:
        _CountedStream.observed += 1
        super().observe(**arguments)


def count_observations() -> None:
    """Have watches open streams that count; once, before any is made."""
    observer.RoutingStream = _CountedStream  # type: ignore[attr-defined] # where watches find it


class Pathwatch:
    """pathwatch on the engine, with the loop of docs/integration.md."""

    package = "pathwatch"

    def __init__(
        self, name: str, *, run: str, server: str, mode: Stream | Probe, every: int, gives: str
    ) -> None:
        self.name = name
        self._run = run
        self.every = every
        self.gives = gives
        self._server = server
        self._mode = mode
        self._watch: Watch | None = None

    @classmethod
    def stream(cls, server: str, every: int, *, job: str) -> Pathwatch:
        """Stream mode, observing every so many steps."""
        mode = Stream(window_steps=WINDOW_STEPS, interval=every, groups=_one_group)
        gives = "routing weights of every sample and layer, losses"
        return cls(
            f"stream every {every}",
            run=f"{job}-stream-{every}",
            server=server,
            mode=mode,
            every=every,
            gives=gives,
        )

    @classmethod
    def probe(cls, server: str, every: int, *, job: str) -> Pathwatch:
        """Probe mode, re-reading every so many steps."""
        generator = torch.Generator().manual_seed(1)
        tokens_NS = torch.randint(models.VOCABULARY, (PROBE_SAMPLES, models.LENGTH), generator=generator)
        group = ProbeGroup(
            inputs={"input_ids": tokens_NS}, sample_ids=torch.arange(PROBE_SAMPLES), labels=tokens_NS
        )
        mode = Probe(groups={"text": group}, interval=every)
        gives = f"the same of {PROBE_SAMPLES} fixed samples"
        return cls(
            f"probe every {every}",
            run=f"{job}-probe-{every}",
            server=server,
            mode=mode,
            every=every,
            gives=gives,
        )

    @property
    def taken(self) -> int:
        """Batches sent."""
        return _CountedStream.observed

    def attach(self, job: Job) -> None:
        """As a training script does; strict, so that a bench of nothing cannot pass."""
        chosen = {"stream" if isinstance(self._mode, Stream) else "probe": self._mode}
        self._watch = job.attach(run=self._run, server=self._server, attempt=0, strict=True, **chosen)

    def extra(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def after_step(self, output: object) -> None:
        """The two questions of a training script."""
        assert self._watch is not None  # noqa: S101
        self._watch.should_checkpoint()
        self._watch.should_stop()

    def settle(self) -> None:
        """All that was sent is acknowledged: the connection stands.

        Raises:
            RuntimeError: the sidecar does not take it.
        """
        stream = _CountedStream.opened[-1]
        if not stream.flush(30.0) or stream.stats.rejected:
            raise RuntimeError(f"{self.name}: the sidecar did not take what was sent: {stream.stats}")

    def detach(self) -> None:
        """Close the watch."""
        assert self._watch is not None  # noqa: S101
        self._watch.close()
        _CountedStream.opened.clear()


def _one_group(inputs: Mapping[str, Tensor]) -> str:
    return "text"


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
