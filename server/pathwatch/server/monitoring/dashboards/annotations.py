"""What happened when, drawn over the charts of a run."""

from __future__ import annotations

from grafana_foundation_sdk.cog import builder
from grafana_foundation_sdk.models import dashboard

from pathwatch.server.monitoring.dashboards.queries import DATASOURCE, GROUPS, RUN
from pathwatch.server.monitoring.dashboards.states import AMBER, GREEN, GREY, RED


class Event(dashboard.AnnotationQuery, builder.Builder[dashboard.AnnotationQuery]):
    """An annotation with a title of its own, which the library's model lacks."""

    title_format = ""

    def build(self) -> dashboard.AnnotationQuery:
        """Itself: it is finished."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's Prometheus data source reads it."""
        return {**super().to_json(), "titleFormat": self.title_format}


def run_events() -> list[Event]:
    """Changes of the signal, chosen checkpoints and new attempts of the chosen run."""
    best = "pathwatch_best_checkpoint_step"
    return [
        _event("Stop advised", _advised("STOP"), RED, "STOP advised"),
        _event("Checkpoint advised", _advised("CHECKPOINT"), AMBER, "CHECKPOINT advised"),
        _event(
            "Checkpoint chosen",
            _begins('count_values("step", {})', f'{best}{{{RUN},group=""}}'),
            GREEN,
            "best checkpoint so far: step {{step}}",
        ),
        _event(
            "Checkpoint chosen of a group",
            _begins('count_values by (group) ("step", {})', f"{best}{{{GROUPS}}}"),
            GREY,
            "best checkpoint of {{group}} so far: step {{step}}",
            shown=False,
        ),
        _event(
            "Attempt",
            _begins('count_values("attempt", {})', f"pathwatch_run_attempt{{{RUN}}}"),
            GREY,
            "attempt {{attempt}} begins",
        ),
    ]


def _advised(action: str) -> str:
    return _begins("max by (action) ({}) == 1", f'pathwatch_run_action{{{RUN},action="{action}"}}')


def _begins(state: str, series: str) -> str:
    """When a state that lasts begins: it holds, and did not one step of the query ago.

    A scrape that failed in between is no beginning, so what held then is what was last heard.
    """
    before = f"last_over_time({series}[5m] offset $__interval)"
    return f"({state.format(series)}) unless ({state.format(before)})"


def _event(name: str, expr: str, colour: str, title: str, *, shown: bool = True) -> Event:
    event = Event(name=name, datasource=DATASOURCE, enable=shown, icon_color=colour, expr=expr)
    event.title_format = title
    return event
