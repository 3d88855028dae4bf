"""Whether the numbers of *Run* can be trusted: what came, what was lost, what waits."""

from __future__ import annotations

from pathwatch.server.monitoring.dashboards.panels import AnyPanel, heat, lines
from pathwatch.server.monitoring.dashboards.queries import RUN, Query, data_age, of_run, sidecar_of_run

LOST = [f"PathwatchObservations{how}" for how in ("Late", "Rejected", "Dropped")]


def data_health() -> list[AnyPanel]:
    closing = "rate(pathwatch_window_close_seconds_bucket[$__rate_interval])"
    by_bound = f"sum by (le) ({sidecar_of_run(closing)})"
    return [
        lines(
            "Observations by what became of them",
            "accepted; beyond: not in the sample that is kept, by design; duplicate: sent again, harmless; "
            "late: its window was closed; rejected: invalid; dropped: the job could not hold them any "
            "longer.",
            "suffix:obs/s",
            Query(
                f"sum by (result) (rate(pathwatch_ingest_observations_total{{{RUN}}}[$__rate_interval]))",
                "{{result}}",
            ),
            low=0,
            stacked=True,
            runbooks=LOST,
        ),
        lines(
            "Observations lost",
            "Late, rejected and dropped, over 5 minutes; should be 0. What is lost is missing from every "
            "number on this page.",
            "suffix:obs/s",
            Query(f"max(run:pathwatch_observations_lost:rate5m{{{RUN}}})", "lost"),
            low=0,
            runbooks=LOST,
        ),
        lines(
            "Data age by group",
            "Steps between the run's newest step and the group's newest judged window; lower = fresher. It "
            "rises and falls with the window; a line that only rises is a group without data.",
            "suffix:steps",
            Query(data_age(), "{{group}}"),
            low=0,
            runbooks=["PathwatchGroupWithoutData"],
        ),
        lines(
            "Ranks over time",
            "Connected should be expected, missing 0.",
            "locale",
            Query(of_run("expected_ranks"), "expected"),
            Query(of_run("connected_ranks"), "connected"),
            Query(of_run("missing_ranks"), "missing in the newest round"),
            low=0,
            runbooks=["PathwatchRanksMissing"],
        ),
        lines(
            "Rounds: partial, and waiting for their verdict",
            "Partial: judged without some ranks, by the grace time; should stay 0. Waiting: closed and not "
            "judged yet; more than a few for minutes: the sidecar does not keep up.",
            "locale",
            Query(f"sum(increase(pathwatch_partial_rounds_total{{{RUN}}}[$__rate_interval]))", "partial"),
            Query(of_run("unjudged_rounds"), "waiting"),
            low=0,
            runbooks=["PathwatchRoundsPartial", "PathwatchRoundsUnjudged"],
        ),
        lines(
            "From the close of a round to its verdict",
            "Of all runs of this run's sidecar; lower = faster advice.",
            "s",
            Query(f"histogram_quantile(0.5, {by_bound})", "median"),
            Query(f"max({sidecar_of_run('pathwatch_window_close_seconds:p99')})", "99 % within"),
            low=0,
            runbooks=["PathwatchWindowsCloseSlowly"],
        ),
        heat(
            "From the close of a round to its verdict: all",
            "Rounds per second by time taken, of all runs of this run's sidecar; the lower the rows that "
            "are filled, the faster the advice.",
            "s",
            Query(by_bound, "{{le}}"),
            scheme="Oranges",
            buckets=True,
            cell_unit="suffix:rounds/s",
            span=24,
            runbooks=["PathwatchWindowsCloseSlowly"],
        ),
    ]
