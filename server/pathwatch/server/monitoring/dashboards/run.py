"""The dashboard *Run*: what is advised to one run and why, and whether its data can be trusted."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, VariableHide, VariableSort

from pathwatch.server.monitoring.dashboards.annotations import run_events
from pathwatch.server.monitoring.dashboards.layout import Section, choice, laid_out, started
from pathwatch.server.monitoring.dashboards.queries import RUN
from pathwatch.server.monitoring.dashboards.run_advice import advice, standing
from pathwatch.server.monitoring.dashboards.run_data import data_health
from pathwatch.server.monitoring.dashboards.run_metrics import bands, layers, losses, pathways

UID = "pathwatch-run"


def run_dashboard() -> model.Dashboard:
    """One run: advice, phases, metrics by group, data health."""
    page = started(
        UID,
        "pathwatch / Run",
        "Which data groups are memorized, which generalize, whether the data can be trusted, "
        "and what is advised.",
        since="now-6h",
    )
    # Runs of the same name on two sidecars are two runs.
    sidecars = choice("sidecar", "Sidecar", 'label_values(pathwatch_run_info{run="$run"}, instance)')
    groups = choice("group", "Group", f"label_values(pathwatch_group_phase{{{RUN}}}, group)")
    page.with_variable(
        choice("run", "Run", "label_values(pathwatch_run_info, run)").sort(VariableSort.ALPHABETICAL_ASC)
    )
    page.with_variable(sidecars.multi(True).include_all(True).all_value(".+").current(_everything()))
    page.with_variable(groups.multi(True).include_all(True).all_value(".+").current(_everything()))
    # One of them, for the link: of all, Grafana would make a pattern.
    page.with_variable(
        choice("address", "Address", f"label_values(pathwatch_run_info{{{RUN}}}, instance)").hide(
            VariableHide.HIDE_VARIABLE
        )
    )
    status_page = dashboard.DashboardLink("Status page").type(DashboardLinkType.LINK)
    status_page.url("${scheme}://${address}/#/runs/${run}").target_blank(True)
    page.link(status_page.tooltip("Reasons in words, and charts by step"))
    page.annotations(list(run_events()))
    return laid_out(
        page,
        [
            Section(title="", panels=[*advice(), *standing()]),
            Section(title="Do the groups share pathways?", panels=pathways()),
            Section(title="Do they fit, and do they generalize?", panels=losses()),
            Section(title="Group by group, with what chance may do (95 %)", panels=bands()),
            Section(title="Can the data be trusted?", panels=data_health()),
            Section(title="Layer by layer", panels=layers(), collapsed=True),
        ],
    )


def _everything() -> model.VariableOption:
    return model.VariableOption(selected=True, text=["All"], value=["$__all"])
