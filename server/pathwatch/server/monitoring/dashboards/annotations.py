"""What happened when, drawn over the charts of a run."""

from __future__ import annotations

from grafana_foundation_sdk.cog import builder
from grafana_foundation_sdk.models import dashboard

from pathwatch.server.monitoring.dashboards.queries import DATASOURCE, RUN
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
        _event("Stop advised", _begins(_advised("STOP")), RED, "STOP advised"),
        _event("Checkpoint advised", _begins(_advised("CHECKPOINT")), AMBER, "CHECKPOINT advised"),
        _event(
            "Checkpoint chosen",
            _begins('count_values("step", ' + best + "{" + RUN + ',group=""}{offset})'),
            GREEN,
            "best checkpoint so far: step {{step}}",
        ),
        _event(
            "Checkpoint chosen of a group",
            _begins('count_values by (group) ("step", ' + best + "{" + RUN + ',group=~"$group"}{offset})'),
            GREY,
            "best checkpoint of {{group}} so far: step {{step}}",
            shown=False,
        ),
        _event(
            "Attempt",
            _begins('count_values("attempt", pathwatch_run_attempt{' + RUN + "}{offset})"),
            GREY,
            "attempt {{attempt}} begins",
        ),
    ]


def _advised(action: str) -> str:
    return f'max by (action) (pathwatch_run_action{{{RUN},action="{action}"}}{{offset}}) == 1'


def _begins(state: str) -> str:
    """When a series that lasts begins: it is there, and was not one step of the query ago."""
    before = state.replace("{offset}", " offset $__interval")
    return f"({state.replace('{offset}', '')}) unless ({before})"


def _event(name: str, expr: str, colour: str, title: str, *, shown: bool = True) -> Event:
    event = Event(name=name, datasource=DATASOURCE, enable=shown, icon_color=colour, expr=expr)
    event.title_format = title
    return event
