"""The dashboard *Fleet*: all runs, one row each, and the sidecars that watch them."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from pathwatch.server.monitoring.dashboards.layout import Section, choice, laid_out, started
from pathwatch.server.monitoring.dashboards.panels import AnyPanel, number
from pathwatch.server.monitoring.dashboards.queries import Query
from pathwatch.server.monitoring.dashboards.run import UID as RUN_UID
from pathwatch.server.monitoring.dashboards.sidecars import grpc, storage, work
from pathwatch.server.monitoring.dashboards.states import (
    AMBER,
    GREY,
    PHASE_COLOURS,
    RED,
    action_number,
    action_words,
    words,
)
from pathwatch.server.monitoring.dashboards.tables import Column, merged
from pathwatch.server.phases.verdict import Phase

UID = "pathwatch-fleet"

# What wants to be looked at comes first.
_PHASE_ORDER = (
    Phase.REGRESSING,
    Phase.OVERFITTING,
    Phase.GENERALIZED,
    Phase.GENERALIZING,
    Phase.MEMORIZED,
    Phase.LEARNING,
    Phase.UNKNOWN,
)


def fleet_dashboard() -> model.Dashboard:
    """All runs, all sidecars."""
    page = started(UID, "pathwatch / Fleet", "All runs, one row each, and their sidecars.", since="now-3h")
    sidecars = choice("sidecar", "Sidecar", "label_values(pathwatch_data_folder_size_bytes, instance)")
    everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    page.with_variable(sidecars.multi(True).include_all(True).all_value(".+").current(everything))
    return laid_out(
        page,
        [
            Section(title="", panels=[*_totals(), _runs()]),
            Section(title="Sidecars: do they keep up?", panels=work()),
            Section(title="Sidecars: gRPC", panels=grpc()),
            Section(title="Sidecars: what they keep, and what fails", panels=storage()),
        ],
    )


def _totals() -> list[AnyPanel]:
    return [
        number(
            "Active runs",
            "Runs that take data.",
            "locale",
            Query("sum(pathwatch_run_active)"),
            span=6,
        ),
        number(
            "Told to stop",
            "Active runs whose advice is STOP: compute that buys nothing more.",
            "locale",
            Query('sum(pathwatch_run_action{action="STOP"} * on (instance, run) pathwatch_run_active)'),
            span=6,
            steps={None: "transparent", 1: RED},
            runbooks=["PathwatchStopAdvised"],
        ),
        number(
            "Stale",
            "Active runs that nothing has been heard of for so long that nobody knows how they are doing.",
            "locale",
            Query("sum(pathwatch_run_stale)"),
            span=6,
            steps={None: "transparent", 1: AMBER},
            runbooks=["PathwatchRunStale"],
        ),
        number(
            "Sidecars up",
            "Sidecars that answer Prometheus, of those it has heard of in the last hour.",
            "locale",
            Query("sum(up and on (instance) last_over_time(pathwatch_data_folder_size_bytes[1h]))", "up"),
            Query(
                "count(count by (instance) (last_over_time(pathwatch_data_folder_size_bytes[1h])))", "known"
            ),
            span=6,
            runbooks=["PathwatchSidecarDown"],
        ),
    ]


def _of_runs(metric: str) -> str:
    return f"max by (run, instance) ({metric})"


def _runs() -> AnyPanel:
    phases = [
        Column(
            title=phase.name.lower(),
            expr=_of_runs(f'run:pathwatch_groups:count_by_phase{{phase="{phase.name}"}}'),
            steps={None: "transparent", 1: PHASE_COLOURS[phase]},
        )
        for phase in _PHASE_ORDER
    ]
    return merged(
        ["run", "instance"],
        "Runs",
        "All runs that are published: active ones, and finished ones for an hour. A click on the name opens "
        "the run. Under each phase: how many groups are in it. Lost: observations late, rejected or dropped.",
        [
            Column(
                title="state",
                expr=_of_runs("pathwatch_run_active"),
                unit="none",
                mappings=words({0: ("finished", GREY), 1: ("active", "transparent")}),
            ),
            Column(
                title="signal",
                expr=_of_runs("pathwatch_run_stale"),
                unit="none",
                mappings=words({0: ("fresh", "transparent"), 1: ("STALE", AMBER)}),
            ),
            Column(title="step", expr=_of_runs("pathwatch_run_step")),
            Column(
                title="advice", expr=action_number("", "run, instance"), unit="none", mappings=action_words()
            ),
            Column(title="stop at", expr=_of_runs("pathwatch_run_stop_at_step")),
            Column(title="best checkpoint", expr=_of_runs('pathwatch_best_checkpoint_step{group=""}')),
            *phases,
            Column(
                title="lost",
                expr=_of_runs("run:pathwatch_observations_lost:rate5m"),
                unit="suffix:/s",
                decimals=2,
                steps={None: "transparent", 0.001: AMBER},
            ),
            Column(title="ranks", expr=_of_runs("pathwatch_expected_ranks")),
            Column(
                title="missing",
                expr=_of_runs("pathwatch_missing_ranks"),
                steps={None: "transparent", 1: AMBER},
            ),
        ],
        height=12,
        links={
            "run": (
                "Open the run",
                f"/d/{RUN_UID}?var-run=${{__value.raw}}&${{datasource:queryparam}}&${{__url_time_range}}",
            ),
            "instance": ("Status page", "${scheme}://${__value.raw}/"),
        },
    )
