"""Sends a recorded trace as the live job would have sent it, one step after the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.client import Client, Credentials, RoutingStream
from pathwatch.server.traces import Trace
from pathwatch.v1 import run_pb2, signal_pb2

_client_logger = logging.getLogger("pathwatch.client")

JUDGED_WITHIN_SECONDS = 60.0
"""How long a step may take to be judged before the replay gives up."""
SAID_WITHIN_SECONDS = 10.0
"""How long the client may take to say why something was refused that it has counted."""


class ReplayError(RuntimeError):
    """The server refused or did not judge a step; the message is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Observations of one group at one step, as `RoutingStream.observe` takes them."""

    group: str
    sample_ids_N: NDArray[np.int64]
    weights_NLK: NDArray[np.floating]
    target_weights_NLK: NDArray[np.floating] | None
    losses_N: NDArray[np.float32] | None
    targets_N: NDArray[np.int32] | None
    visits_N: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStep:
    """What the server said after one step."""

    step: int
    windows: Sequence[signal_pb2.Window]
    signals: Sequence[signal_pb2.Signal]
    """Changes of the signal since the step before."""


def step_batches(trace: Trace, index: int) -> list[Batch]:
    """All observations of a step; samples without a finite loss in a batch of their own, without losses."""
    batches = []
    for g, group in enumerate(trace.groups):
        finite_N = np.isfinite(trace.losses_TGN[index, g])
        for chosen_N, with_loss in ((np.flatnonzero(finite_N), True), (np.flatnonzero(~finite_N), False)):
            if len(chosen_N) == 0:
                continue
            batches.append(
                Batch(
                    group=group,
                    sample_ids_N=chosen_N.astype(np.int64),
                    weights_NLK=trace.weights_TGNLK[index, g, chosen_N],
                    target_weights_NLK=_at(trace.target_weights_TGNLK, (index, g, chosen_N)),
                    losses_N=trace.losses_TGN[index, g, chosen_N] if with_loss else None,
                    targets_N=_at(trace.targets_GN, (g, chosen_N)),
                    visits_N=_at(trace.visits_TGN, (index, g, chosen_N)),
                )
            )
    return batches


def replay(
    trace: Trace,
    *,
    address: str,
    run: str,
    credentials: Credentials | None = None,
    keep_observations: bool = False,
    batches: Callable[[Trace, int], Sequence[Batch]] = step_batches,
) -> Iterator[JudgedStep]:
    """Creates the run, sends each step only after the one before was judged, and finishes the run.

    Every step is registered as a checkpoint before its watermark. Raises `ReplayError`, and
    `pathwatch.client.PathwatchError` for calls that fail.
    """
    config = run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=trace.layers, experts=trace.experts),
        mode=run_pb2.OBSERVATION_MODE_PROBE,
        keep_observations=keep_observations,
    )
    with Client(address, credentials=credentials) as client:
        existing = client.create_run(run, config)
        if existing.step >= 0 or existing.state != run_pb2.RUN_STATE_ACTIVE:
            raise ReplayError(f"run {run!r} exists already, up to step {existing.step}; choose another name")
        stream = RoutingStream(address, run=run, credentials=credentials)
        warnings = _NewestWarning()
        _client_logger.addHandler(warnings)
        try:
            before, revision = -1, 0
            for index, step in enumerate(map(int, trace.steps_T)):
                _send(stream, trace, index, batches(trace, index))
                stream.register_checkpoint(step=step, tag=f"step-{step}")
                stream.watermark(step)
                _await_judged(client, stream, run, step, warnings)
                said = client.get_metrics(run, after_step=before)
                signals = [signal for signal in said.signals if signal.revision > revision]
                before, revision = step, max([revision, *(signal.revision for signal in signals)])
                yield JudgedStep(step=step, windows=said.windows, signals=signals)
        finally:
            stream.close()
            _client_logger.removeHandler(warnings)
        client.finish_run(run)


def _send(stream: RoutingStream, trace: Trace, index: int, batches: Sequence[Batch]) -> None:
    step = int(trace.steps_T[index])
    if trace.gram_self_TLKK is not None and trace.gram_next_TLKK is not None:
        stream.geometry(
            step=step, gram_self=trace.gram_self_TLKK[index], gram_next=trace.gram_next_TLKK[index]
        )
    for batch in batches:
        stream.observe(
            step=step,
            group=batch.group,
            sample_ids=batch.sample_ids_N,
            weights=batch.weights_NLK,
            target_weights=batch.target_weights_NLK,
            losses=batch.losses_N,
            targets=batch.targets_N,
            visits=batch.visits_N,
        )


class _NewestWarning(logging.Handler):
    """The client tells of refusals by its log alone."""

    text = "no reason known"

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._refusal = ""
        self._refused = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        if " refused: " in self.text and not self._refusal:
            self._refusal = self.text
            self._refused.set()

    def refusal(self) -> str:
        """Why the first message was refused, which is said a moment after it is counted."""
        self._refused.wait(SAID_WITHIN_SECONDS)
        return self._refusal or self.text


def _await_judged(
    client: Client, stream: RoutingStream, run: str, step: int, warnings: _NewestWarning
) -> None:
    deadline = time.monotonic() + JUDGED_WITHIN_SECONDS
    pause = 0.001
    while client.get_run(run).closed_step < step:
        if stream.stats.rejected:
            break
        if time.monotonic() > deadline:
            why = stream.stats.last_error or warnings.text
            raise ReplayError(
                f"the server did not judge step {step} within {JUDGED_WITHIN_SECONDS:g} s ({why})"
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    if stream.stats.rejected:
        raise ReplayError(f"the server refused part of step {step} ({warnings.refusal()})")


def _at(array: NDArray[Any] | None, index: tuple[Any, ...]) -> NDArray[Any] | None:
    return None if array is None else array[index]
