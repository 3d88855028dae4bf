"""Histories of any length: what they take on disk, and what it takes to look at them."""

from __future__ import annotations

import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from bench.figures import Figure, Unit
from bench.growth.curves import curve, megabytes, milliseconds
from bench.growth.made_up import EVERY, GROUP, extend
from bench.sidecar import Sidecar
from bench.window.closing import seconds
from pathwatch.client import Client
from pathwatch.server.statuspage.series import series_document
from pathwatch.server.statuspage.values import to_json
from pathwatch.server.store.interface import Store
from pathwatch.server.store.sqlite import SqliteStore

_POINTS = 500
"""What the page asks for."""
_WIDE = (GROUP, *(f"group-{number}" for number in range(2, 9)))
_AIM_SECONDS = 0.1
_FLAT = 0.15
"""What a curve of what does not depend on the history may look like: trees grow higher, caches are missed."""


def history(quick: bool) -> Iterator[Figure]:
    """A run of up to 100,000 windows, and one of 1,000 beside it."""
    short, long = 1000, 100_000
    with tempfile.TemporaryDirectory(prefix="pathwatch-growth-") as folder:
        data = Path(folder) / "data"
        with closing(SqliteStore(data)) as store:
            extend(store, "short", 0, short)
            yield from _curves(store, [short, 10_000, long] if quick else [short, 3000, 10_000, 30_000, long])
            wide = long // len(_WIDE)
            extend(store, "wide", 0, wide, _WIDE)
        with Sidecar(data) as server, Client(server.grpc) as client:
            times = 30 if quick else 100
            yield from _interactive(server, client, short, long, rounds=times)
            yield _of_all_groups(server, client, wide, rounds=times)


def _curves(store: Store, sizes: Sequence[int]) -> Iterator[Figure]:
    written, kept, shown, followed, begun = 0, {}, {}, {}, {}
    empty = store.storage().database_bytes
    writing = 0.0
    taken = {}
    for size in sizes:
        writing += seconds(partial(extend, store, "long", written, size))
        written = size
        taken[size] = writing
        kept[size] = float(store.storage().database_bytes - empty)
        shown[size] = min(seconds(partial(_show, store)) for _ in range(5))
        followed[size] = min(seconds(partial(_follow, store, size)) for _ in range(5))
        begun[size] = min(seconds(partial(store.newest_windows, "long")) for _ in range(5))
    yield curve("history.write", taken, milliseconds)
    yield curve("history.bytes", kept, megabytes)
    yield curve("history.series", shown, milliseconds, aim=_FLAT)
    yield curve("history.follow", followed, milliseconds, aim=_FLAT)
    yield curve("history.newest", begun, milliseconds, aim=_FLAT)


def _show(store: Store) -> bytes:
    thinned = store.thinned_history("long", [GROUP], points=_POINTS)
    if thinned is None:
        raise RuntimeError("the run is gone")
    return to_json(series_document("long", thinned, None))


def _follow(store: Store, rounds: int) -> None:
    """What comes every half second of who watches."""
    store.history("long", after_step=EVERY * (rounds - 2))


def _questions(server: Sidecar, client: Client, windows: int) -> Mapping[str, Callable[[str], object]]:
    """What is asked of a run with so many windows of each group, by name."""
    last = EVERY * (windows - 2)

    def web(path: str) -> Callable[[str], object]:
        def ask(run: str) -> None:
            with urllib.request.urlopen(f"http://{server.http}/api/v1/runs/{run}/{path}", timeout=60) as page:
                page.read()

        return ask

    return {
        "series": web(f"series?points={_POINTS}"),
        "what is new of them": web(f"series?points={_POINTS}&after_step={last}"),
        "layers": web(f"layers?group={GROUP}&points=200"),
        "events": web("events"),
        "GetMetrics in brief": lambda run: client.get_metrics(run, max_points=_POINTS),
        "GetMetrics of what is new": lambda run: client.get_metrics(run, after_step=last),
    }


def _interactive(server: Sidecar, client: Client, short: int, long: int, *, rounds: int) -> Iterator[Figure]:
    slowest: dict[str, float] = {}
    ratios = []
    told = []
    for name, ask in _questions(server, client, long).items():
        cold = _wall(partial(ask, "long"))
        times: dict[str, list[float]] = {"short": [], "long": []}
        for _ in range(rounds):
            for run, taken in times.items():
                taken.append(_wall(partial(ask, run)))
        slowest[name] = float(np.percentile(times["long"], 99))
        median = float(np.median(times["long"]))
        if name == "series":
            ratios = [b / a for a, b in zip(times["short"], times["long"], strict=True)]
        told.append(
            f"{name} {milliseconds(median)} (p99 {milliseconds(slowest[name])}, first {milliseconds(cold)})"
        )
    yield Figure(
        name="growth.history.100k",
        value=max(slowest.values()),
        unit=Unit.SECONDS,
        higher_is_better=False,
        aim=_AIM_SECONDS,
        detail="one group: " + "; ".join(told),
    )
    yield Figure(
        name="growth.history.over_1k",
        value=float(np.median(ratios)),
        unit=Unit.RATIO,
        higher_is_better=False,
        aim=2.0,
        detail=f"{_POINTS} points of {long:,} windows over as many of {short:,}, over HTTP in turns",
    )


def _of_all_groups(server: Sidecar, client: Client, windows: int, *, rounds: int) -> Figure:
    """As many windows in all, of eight groups; the answers are of all of them, eight times as long."""
    times = {
        name: [_wall(partial(ask, "wide")) for _ in range(rounds)]
        for name, ask in _questions(server, client, windows).items()
    }
    slowest = {name: float(np.percentile(taken, 99)) for name, taken in times.items()}
    told = "; ".join(
        f"{name} {milliseconds(float(np.median(taken)))} (p99 {milliseconds(slowest[name])})"
        for name, taken in times.items()
    )
    return Figure(
        name="growth.history.eight_groups",
        value=max(slowest.values()),
        unit=Unit.SECONDS,
        higher_is_better=False,
        detail=f"{windows:,} windows of each of {len(_WIDE)} groups: {told}",
    )


def _wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
