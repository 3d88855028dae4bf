"""A job of four ranks to which everything happens that happens to jobs, and what the service made of it.

Two runs at once: a rank that comes late, a rewind to an older step as a new attempt (in the stream run to
the middle of a window), a rank that leaves, the end. A third run is deleted and made again under its name.
Stages wait for each other where the service's answer would else depend on who was faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from rank_messages import CONFIGS, RANKS
from rank_process import RankProcesses
from stream_report import check_nothing_lost

from pathwatch.client import Client, PathwatchError, RoutingStream
from pathwatch.v1 import run_pb2

T = TypeVar("T")

PATIENCE_SECONDS = 240.0
ALL = tuple(range(RANKS))
LEFT = tuple(range(RANKS - 1))
"""Without the last rank, which comes late and leaves early."""
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps of the job; both runs go through the same ones."""

    late: int = 2
    """Last step before the late rank comes."""
    crash: int = 19
    """Last step of the first attempt."""
    rewind_probe: int = 14
    rewind_stream: int = 12
    """First steps of the second attempt."""
    stop: int = 18
    """Step at which both attempts of the probe run are told to stop. `stop_at_step` lies ahead of the newest
    step seen, so that it depends on how far the ranks are by then: they wait."""
    leave: int = 44
    """Last step of the rank that leaves."""
    last: int = 47


class Job:
    """Plays a `Plan` against a server that may be killed at any time."""

    def __init__(self, address: str, ranks: RankProcesses, plan: Plan, *, in_order: bool = False) -> None:
        """`in_order`: one rank at a time, one step at a time, each acknowledged before the next."""
        self._address = address
        self._ranks = ranks
        self._plan = plan
        self._in_order = in_order

    def run(self) -> None:
        """From the first step to the end of all runs. AssertionError where something was lost on the way."""
        plan = self._plan
        self._call(lambda client: client.create_run("probe", CONFIGS["probe"]))
        self._play(0, 0, 0, plan.late, LEFT)
        self._play(0, 0, 0, plan.late, (RANKS - 1,))
        self._play(0, plan.late + 1, plan.late + 1, plan.stop)
        self._wait_judged(plan.stop)
        self._play(0, plan.stop + 1, plan.stop + 1, plan.crash)
        self._wait_judged(plan.crash)
        self._ranks.close_streams()
        self._delete_and_make_again()
        self._play(1, plan.rewind_probe, plan.rewind_stream, plan.stop)
        self._wait_judged(plan.stop)
        self._play(1, plan.stop + 1, plan.stop + 1, plan.leave)
        self._play(1, plan.leave + 1, plan.leave + 1, plan.last, LEFT)
        check_nothing_lost(self._ranks.close_streams())
        for run in CONFIGS:
            self._call(lambda client, run=run: client.finish_run(run))

    def _play(
        self, attempt: int, first_probe: int, first_stream: int, last: int, ranks: tuple[int, ...] = ALL
    ) -> None:
        firsts = {"probe": first_probe, "stream": first_stream}
        if not self._in_order:
            plays = [
                {"run": run, "attempt": attempt, "first": first, "last": last}
                for run, first in firsts.items()
            ]
            self._ranks.play(self._address, plays, ranks)
            return
        for run, first in firsts.items():
            for step in range(first, last + 1):
                for rank in ranks:
                    play = {"run": run, "attempt": attempt, "first": step, "last": step}
                    self._ranks.play(self._address, [play], [rank])

    def _wait_judged(self, step: int) -> None:
        windows = {"probe": step, "stream": step - (step + 1) % 5}
        deadline = time.monotonic() + PATIENCE_SECONDS
        for run, closed in windows.items():
            while (found := self._call(lambda c, run=run: c.get_run(run))).closed_step < closed:
                assert time.monotonic() < deadline, f"{run} is judged up to {found.closed_step} of {closed}"
                time.sleep(0.02)

    def _delete_and_make_again(self) -> None:
        """What is left of the deleted run would show in the new one."""
        for layers in (2, 3):
            config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=layers, experts=4))
            self._call(lambda client, config=config: client.create_run("again", config))
            stream = RoutingStream(self._address, run="again")
            for step in range(4 - layers):
                weights_NLK = np.full((6, layers, 4), 0.25, np.float32)
                stream.observe(step=step, group="only", sample_ids=np.arange(6), weights=weights_NLK)
                stream.watermark(step)
            assert stream.flush(PATIENCE_SECONDS)
            stream.close()
            if layers == 2:
                self._call(_delete)
        self._call(lambda client: client.finish_run("again"))

    def _call(self, call: Callable[[Client], T]) -> T:
        """As a scheduler calls: again, until a server answers."""
        return persistently(self._address, call)


def persistently(address: str, call: Callable[[Client], T]) -> T:
    """The answer of whichever life of the server gives one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with Client(address, timeout=30) as client:
                return call(client)
        except PathwatchError as error:
            if error.code not in _PASSING or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _delete(client: Client) -> None:
    try:
        client.delete_run("again")
    except PathwatchError as error:
        # An earlier call did it; the server was killed before it could say so.
        if error.code is not grpc.StatusCode.NOT_FOUND:
            raise


def outcome(address: str) -> dict[str, bytes]:
    """Everything the service has to say about all runs, in pieces by name; without the time of day."""
    return persistently(address, _outcome)


def _outcome(client: Client) -> dict[str, bytes]:
    said: dict[str, Message] = {}
    for run in sorted(client.list_runs(), key=lambda run: run.name):
        history = client.get_metrics(run.name)
        for stamped in (run.created_at, run.updated_at):
            stamped.Clear()
        said[f"{run.name}: run"] = run
        for window in history.windows:
            said[f"{run.name}: window {window.step} {window.group}"] = window
        for signal in (*history.signals, last := client.get_signal(run.name)):
            signal.ClearField("created_at")
            name = "last signal" if signal is last else f"signal {signal.revision}"
            said[f"{run.name}: {name}"] = signal
        for group in ("", *run.groups):
            for place, ranked in enumerate(client.rank_checkpoints(run.name, group=group)):
                said[f"{run.name}: place {place} {group}"] = ranked
        if run.config.keep_observations:
            for round_ in client.get_observations(run.name):
                said[f"{run.name}: observations {round_.step}"] = round_
    return {name: message.SerializeToString(deterministic=True) for name, message in said.items()}


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """What is not the same to the bit; empty = nothing."""
    return [
        f"{name}: {'missing' if name not in found else 'unwanted' if name not in wanted else 'differs'}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
