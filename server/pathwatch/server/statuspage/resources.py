"""What each path of the JSON API holds (docs/api.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
from pathwatch.server.statuspage.documents import VERSION, run_document, runs_document, server_version
from pathwatch.server.statuspage.events import events_document
from pathwatch.server.statuspage.failures import not_found
from pathwatch.server.statuspage.parameters import Parameters
from pathwatch.server.statuspage.rankings import Rankings, checkpoints_document
from pathwatch.server.statuspage.responses import Resource, tag_of
from pathwatch.server.statuspage.series import columns, layers_document
from pathwatch.server.statuspage.values import JsonObject
from pathwatch.server.store.interface import StoreReader

MAX_STEP = 2**53
MAX_POINTS = 10_000
MAX_METRICS = 64


class Resources:
    """Reads the engine's views, and history from the store."""

    def __init__(self, engine: Engine, store: StoreReader) -> None:
        self._engine = engine
        self._store = store
        self._rankings = Rankings(engine)

    def runs(self, query: str) -> Resource:
        """`/runs`."""
        Parameters(query, ())
        views, now = self._engine.views, self._engine.now()
        states = [_moment(view, now) for view in views.values()]
        return _document(tag_of(states), partial(runs_document, views.values(), now))

    def run(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME`."""
        Parameters(query, ())
        now = self._engine.now()
        return _document(tag_of(_moment(view, now), view.health), partial(run_document, view, now))

    def series(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/series`."""
        asked = Parameters(query, ("after_step", "group", "points", "metrics"))
        group = self._group(view, asked)
        after_step = asked.whole("after_step", -1, least=-1, most=MAX_STEP)
        asked.whole("points", 1000, least=2, most=MAX_POINTS)
        metrics = asked.names("metrics", most=MAX_METRICS)

        def document() -> JsonObject:
            history = self._store.history(view.run.name, after_step=after_step, group=group)
            names = [group] if group else view.run.groups
            return {
                "version": VERSION,
                "run": view.run.name,
                "closed_step": history.closed_step,
                "attempt": view.run.attempt,
                "stride": 1,
                "groups": {
                    name: columns([row for row in history.windows if row.group == name], metrics)
                    for name in names
                },
            }

        return _document(tag_of(_history(view)), document)

    def layers(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/layers`."""
        asked = Parameters(query, ("group", "points"))
        group = self._group(view, asked)
        asked.whole("points", 200, least=2, most=MAX_POINTS)
        name, layers = view.run.name, view.run.config.topology.layers

        def document() -> JsonObject:
            history = self._store.history(name, group=group)
            return layers_document(name, group, layers, history.windows)

        return _document(tag_of(_history(view)), document)

    def events(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/events`."""
        asked = Parameters(query, ("after_revision",))
        after = asked.whole("after_revision", 0, least=0, most=MAX_STEP)
        name = view.run.name

        def document() -> JsonObject:
            rows = self._store.signals(name, after_revision=max(0, after - 1))
            return events_document(name, rows, after)

        return _document(tag_of(_life(view), view.last_signal.revision), document)

    def checkpoints(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/checkpoints`."""
        group = self._group(view, Parameters(query, ("group",)))
        name, state = view.run.name, tag_of(_history(view))

        def document() -> JsonObject:
            return checkpoints_document(name, group, self._rankings.ranked(name, state, group))

        return _document(state, document)

    def _group(self, view: RunView, asked: Parameters) -> str:
        group = asked.text("group") or ""
        if group and group not in view.run.groups:
            raise not_found(
                f"run {view.run.name!r} has no group {group!r}; /api/v1/runs/{view.run.name} lists them"
            )
        return group


def _document(tag: str, make: Callable[[], JsonObject]) -> Resource:
    def body() -> bytes:
        return json.dumps(make(), allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()

    return Resource(tag, "application/json", body)


def _life(view: RunView) -> tuple[object, ...]:
    """What tells a run from one of the same name before, and the document's form."""
    return server_version(), view.run.name, view.run.created_at.ToNanoseconds()


def _history(view: RunView) -> tuple[object, ...]:
    """What changes with every judged round and every rewind."""
    return (*_life(view), view.run.attempt, view.run.closed_step)


def _moment(view: RunView, now: float) -> tuple[object, ...]:
    """What changes with all that is said of a run but its health."""
    signal = view.signal(now)
    return (
        *_history(view),
        view.run.state,
        view.run.step,
        view.run.world_size,
        tuple(view.run.groups),
        view.updated_at,
        view.patience,
        signal.revision,
        signal.step,
        signal.stale,
    )
