"""pathwatch as one of the variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.overhead import models
from bench.overhead.job import Job
from pathwatch.client import RoutingStream
from pathwatch.integrations.observing import Probe, ProbeGroup, Stream, Watch, observer

WINDOW_STEPS = 500
PROBE_SAMPLES = 32


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
