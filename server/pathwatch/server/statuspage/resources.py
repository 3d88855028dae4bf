"""What each path of the JSON API holds (docs/api.md)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
from pathwatch.server.statuspage.documents import run_document, runs_document, server_version
from pathwatch.server.statuspage.events import Events
from pathwatch.server.statuspage.failures import ApiError, bad_request, not_found
from pathwatch.server.statuspage.gate import Gate
from pathwatch.server.statuspage.parameters import Parameters
from pathwatch.server.statuspage.rankings import Rankings, checkpoints_document
from pathwatch.server.statuspage.responses import Resource, tag_of
from pathwatch.server.statuspage.series import layers_document, series_document
from pathwatch.server.statuspage.values import JsonObject, to_json
from pathwatch.server.store.answers import ThinnedHistory
from pathwatch.server.store.interface import StoreReader

MAX_STEP = 2**53
MAX_POINTS = 10_000
MAX_WINDOWS = 20_000
"""In one answer, all groups together: some 100 MB while it is made."""
MAX_LAYER_POINTS = 1000
MAX_METRICS = 64


class Resources:
    """Reads the engine's views, and history from the store."""

    def __init__(self, engine: Engine, store: StoreReader) -> None:
        self._engine = engine
        self._store = store
        self._rankings = Rankings(engine)
        self._events = Events(store)
        self._gate = Gate()
        self._start = secrets.token_hex(8)
        """Registrations are counted from the start: what was held before it is not known to be the same."""

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
        groups = [group] if group else list(view.run.groups)
        after_step = asked.whole("after_step", -1, least=-1, most=MAX_STEP)
        points = asked.whole("points", 1000, least=2, most=MAX_POINTS)
        metrics = asked.names("metrics", most=MAX_METRICS)
        points = max(2, min(points, MAX_WINDOWS // max(1, len(groups))))

        def document() -> JsonObject:
            history = self._history(view, groups, points, after_step, layers=False)
            return series_document(view.run.name, history, metrics)

        return self._read(tag_of(_judged(view)), document)

    def layers(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/layers`."""
        asked = Parameters(query, ("group", "points"))
        group = self._group(view, asked)
        if not group:
            raise bad_request("group: name one, group=NAME")
        points = asked.whole("points", 200, least=2, most=MAX_LAYER_POINTS)

        def document() -> JsonObject:
            history = self._history(view, [group], points)
            return layers_document(view.run.name, group, view.run.config.topology.layers, history)

        return self._read(tag_of(_judged(view)), document)

    def events(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/events`."""
        asked = Parameters(query, ("after_revision",))
        newest = view.last_signal.revision
        after = asked.whole("after_revision", 0, least=0, most=MAX_STEP)

        def document() -> JsonObject:
            events = self._events.document(view.run.name, _life(view), after, newest)
            if events is not None:
                return events
            raise _deleted(view)

        return self._read(tag_of(_life(view), newest), document)

    def checkpoints(self, view: RunView, query: str) -> Resource:
        """`/runs/NAME/checkpoints`."""
        group = self._group(view, Parameters(query, ("group",)))
        name, state = view.run.name, tag_of(_judged(view), self._start, view.registrations)

        def document() -> JsonObject:
            return checkpoints_document(name, group, self._rankings.ranked(name, state, group))

        return _document(state, document)

    def _history(
        self,
        view: RunView,
        groups: Sequence[str],
        points: int,
        after_step: int = -1,
        *,
        layers: bool = True,
    ) -> ThinnedHistory:
        history = self._store.thinned_history(
            view.run.name, groups, points=points, after_step=after_step, layers=layers
        )
        if history is None:
            raise _deleted(view)
        return history

    def _read(self, tag: str, make: Callable[[], JsonObject]) -> Resource:
        """A document that is read from the store: while it is made, it takes much memory."""
        resource = _document(tag, make)

        def body() -> bytes:
            with self._gate.entered():
                return resource.body()

        return replace(resource, body=body)

    def _group(self, view: RunView, asked: Parameters) -> str:
        group = asked.text("group") or ""
        if group and group not in view.run.groups:
            raise not_found(
                f"run {view.run.name!r} has no group {group!r}; /api/v1/runs/{view.run.name} lists them"
            )
        return group


def _document(tag: str, make: Callable[[], JsonObject]) -> Resource:
    return Resource(tag, "application/json", lambda: to_json(make()))


def _deleted(view: RunView) -> ApiError:
    return not_found(f"run {view.run.name!r} was deleted")


def _life(view: RunView) -> tuple[object, ...]:
    """What tells a run from one of the same name before, and the document's form."""
    return server_version(), view.run.name, view.run.created_at.ToNanoseconds()


def _judged(view: RunView) -> tuple[object, ...]:
    """What changes with every judged round and every rewind."""
    return (*_life(view), view.run.attempt, view.run.closed_step)


def _moment(view: RunView, now: float) -> tuple[object, ...]:
    """What changes with all that is said of a run but its health."""
    signal = view.signal(now)
    return (
        *_judged(view),
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
