"""PromQL that more than one panel asks, and how a panel names its answers.

Aggregated by run or group: a sidecar that comes back under another address goes on in the same line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

Target: TypeAlias = Builder[Dataquery]

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
SIDECAR = 'instance=~"$sidecar"'
RUN = f'run="$run",{SIDECAR}'
GROUPS = f'{RUN},group=~"$group"'
REFS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What a panel calls its queries, in order."""
NORMAL_95 = 1.96
"""Standard errors on either side of a mean that hold it 19 times of 20."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask, and the name of a line of the answer ({{label}} = its value)."""

    expr: str
    legend: str = ""


def of_run(name: str) -> str:
    """The chosen run's value of a metric, by its name without the prefix."""
    return f"max(pathwatch_{name}{{{RUN}}})"


def of_groups(name: str) -> str:
    """The value of each chosen group."""
    return f"max by (group) (pathwatch_{name}{{{GROUPS}}})"


def over_all_groups(name: str) -> str:
    """A metric's value over all groups of the chosen run, where each group has one, too."""
    return f'max(pathwatch_{name}{{{RUN},group=""}})'


def data_age() -> str:
    return f"max by (group) (group:pathwatch_data_age:steps{{{GROUPS}}})"


def sidecar_of_run(expr: str) -> str:
    """Of series by sidecar, those of the one that holds the chosen run."""
    return f"({expr}) and on (instance) pathwatch_run_info{{{RUN}}}"


def over_time(queries: Iterable[Query], form: PromQueryFormat) -> list[Target]:
    """Range queries of one panel."""
    return [_target(query, ref, form).range() for ref, query in zip(REFS, queries, strict=False)]


def now(queries: Iterable[Query], form: PromQueryFormat) -> list[Target]:
    """Instant queries of one panel."""
    return [_target(query, ref, form).instant() for ref, query in zip(REFS, queries, strict=False)]


def _target(query: Query, ref: str, form: PromQueryFormat) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref).format(form)
    target = target.datasource(DATASOURCE).editor_mode(QueryEditorMode.CODE)
    return target.legend_format(query.legend) if query.legend else target
