"""All runs as they stand, read at every scrape; what has not changed since the last is not written again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
from pathwatch.server.exporter import group_points, run_points
from pathwatch.server.exporter.families import Family, Labels, Point, lines_by_family
from pathwatch.server.exporter.folding import folded_names, group_states
from pathwatch.server.exporter.prepared import PreparedFamily
from pathwatch.v1 import run_pb2

_FAMILIES = (*group_points.FAMILIES, *run_points.FAMILIES)


@dataclass(frozen=True, slots=True)
class _GroupLines:
    """The lines of a run's groups, and what they were written from."""

    view: RunView
    stale: bool
    lines: Mapping[Family, str]

    def hold_for(self, view: RunView, stale: bool) -> bool:
        """Whether they would be the same: a view is made anew far more often than these parts of it."""
        mine = self.view
        return (
            self.stale == stale
            and mine.windows is view.windows
            and mine.last_signal is view.last_signal
            and mine.phase_changes is view.phase_changes
            and mine.groups is view.groups
        )


class StateCollector(Collector):
    """Reads the engine's views, which are swapped in whole: it takes no lock that anybody else needs."""

    def __init__(self, engine: Engine, *, series_groups: int, finished_series_seconds: float) -> None:
        """Beyond `series_groups` groups of a run share series. Those of a finished run go so many seconds
        after its last data, those of a deleted one at once."""
        self._engine = engine
        self._series_groups = series_groups
        self._finished_series_seconds = finished_series_seconds
        self._written: Mapping[str, _GroupLines] = {}

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        now = self._engine.now()
        views = [view for _, view in sorted(self._engine.views.items()) if self._is_published(view, now)]
        written = {view.run.name: self._group_lines(view, now) for view in views}
        self._written = written
        lines: dict[Family, list[str]] = {family: [] for family in _FAMILIES}
        for view in views:
            of_run = lines_by_family(self._run_points(view, now))
            for part in (written[view.run.name].lines, of_run):
                for family, text in part.items():
                    lines.setdefault(family, []).append(text)
        points = cache(lambda: self._points_by_family(views, now))
        for family, of_family in lines.items():
            yield PreparedFamily(family, of_family, points)

    def _is_published(self, view: RunView, now: float) -> bool:
        is_active = view.run.state == run_pb2.RUN_STATE_ACTIVE
        return is_active or now - view.updated_at < self._finished_series_seconds

    def _group_lines(self, view: RunView, now: float) -> _GroupLines:
        stale = view.is_stale(now)
        written = self._written.get(view.run.name)
        if written is not None and written.hold_for(view, stale):
            return written
        return _GroupLines(view, stale, lines_by_family(self._group_points(view, now)))

    def _group_points(self, view: RunView, now: float) -> Iterator[Point]:
        groups = group_states(view, view.signal(now), self._series_groups)
        return group_points.group_points(Labels.of_run(view.run.name), groups)

    def _run_points(self, view: RunView, now: float) -> Iterator[Point]:
        _, folded = folded_names(view.groups, self._series_groups)
        return run_points.run_points(Labels.of_run(view.run.name), view, view.signal(now), now, len(folded))

    def _points_by_family(self, views: Sequence[RunView], now: float) -> Mapping[Family, Sequence[Point]]:
        points: defaultdict[Family, list[Point]] = defaultdict(list)
        for view in views:
            for of_part in (self._group_points(view, now), self._run_points(view, now)):
                for point in of_part:
                    points[point[0]].append(point)
        return points
