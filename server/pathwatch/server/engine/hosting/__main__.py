"""The process of a hosted plug-in: loads it, then answers one question after the other."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from pathwatch.server import plugins
from pathwatch.server.engine.hosting import frames


def _detector_calls(name: str, options: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    detector = plugins.load_detector(name)

    def update(step: int, round_: Mapping[str, Any]) -> Any:
        return frames.from_verdicts(detector.update(step, round_))

    def rank(checkpoints: list[Any], group: str | None) -> Any:
        return frames.from_ranking(list(detector.rank(frames.to_checkpoints(checkpoints), group)))

    return {
        "measure": lambda window: dict(detector.measure(frames.to_window(window))),
        "update": update,
        "rank": rank,
    }


def _policy_calls(name: str, options: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    policy = plugins.load_policy(name, options)

    def decide(step: int, verdicts: Mapping[str, Any]) -> Any:
        return frames.from_decision(policy.decide(step, frames.to_verdicts(verdicts)))

    return {"decide": decide}


def _metric_calls(name: str, options: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    metric = plugins.load_metric(name)

    def compute(window: Any, others: list[Any], geometry: Any) -> Any:
        values = metric(
            frames.to_window(window),
            [frames.to_window(other) for other in others],
            frames.to_geometry(geometry),
        )
        return {str(key): float(value) for key, value in values.items()}

    return {"compute": compute}


_CALLS = {
    plugins.DETECTORS: _detector_calls,
    plugins.POLICIES: _policy_calls,
    plugins.METRICS: _metric_calls,
}


def _end_with(lifeline: int) -> None:
    """The server has gone, by whatever way: so do this process and its group, in the middle of a call too."""
    # By the kernel, as a plug-in that hangs in C lets no thread of ours run.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    # And by a thread, where the kernel does not tell of pipes, or the server went before it was to.
    threading.Thread(target=_end_when_closed, args=(lifeline,), daemon=True).start()


def _end_when_closed(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(0)


def main(connection: Connection, lifeline: int) -> None:
    """Answers until the server closes the connection."""
    _end_with(lifeline)
    calls: dict[str, Callable[..., Any]] = {}
    while True:
        try:
            question = frames.from_frame(connection.recv_bytes())
        except EOFError:
            return
        do = question.pop("do")
        try:
            if do == "load":
                calls = _CALLS[question["kind"]](question["name"], question["options"])
                answer = frames.to_frame({"value": None})
            else:
                answer = frames.to_frame({"value": calls[do](**question)})
        except plugins.PluginError as error:
            answer = frames.to_frame({"error": str(error), "traceback": ""})
        except Exception as error:  # a plug-in may fail in any way
            answer = frames.to_frame({"error": repr(error), "traceback": traceback.format_exc()})
        connection.send_bytes(answer)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
