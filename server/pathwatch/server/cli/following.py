"""Follows a run from its first window to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pathwatch.client import Client
from pathwatch.v1 import run_pb2, signal_pb2

POINTS = 1000
"""Windows of each group that are told of a run that is longer when following begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What is new since the last one."""

    run: run_pb2.Run
    signal: signal_pb2.Signal
    """As it stands now."""
    windows: Sequence[signal_pb2.Window]
    """Closed since, by step, then group."""
    signals: Sequence[signal_pb2.Signal]
    """Given since."""
    rewound: bool
    """True when a new attempt has begun: what was shown of later steps no longer holds."""


def follow(client: Client, name: str, *, every_seconds: float = 0.5) -> Iterator[Update]:
    """Yields at once and then every `every_seconds`, whether or not there is news; ends with the run.

    What was there before comes in brief: at most `POINTS` windows of each group.
    """
    after_step, revision, attempt = -1, 0, None
    while True:
        run = client.get_run(name)
        rewound = attempt is not None and run.attempt != attempt
        if rewound:
            after_step = -1
        attempt = run.attempt
        history = client.get_metrics(name, after_step=after_step, max_points=POINTS if after_step < 0 else 0)
        signals = [signal for signal in history.signals if signal.revision > revision]
        revision = max([revision, *(signal.revision for signal in signals)])
        after_step = max([after_step, *(window.step for window in history.windows)])
        yield Update(
            run=run,
            signal=client.get_signal(name),
            windows=history.windows,
            signals=signals,
            rewound=rewound,
        )
        if run.state == run_pb2.RUN_STATE_FINISHED:
            return
        time.sleep(every_seconds)
