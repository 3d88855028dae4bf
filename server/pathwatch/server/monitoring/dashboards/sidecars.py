"""The health of the sidecars: work, gRPC, storage, notifications."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.monitoring.dashboards.panels import AnyPanel, lines
from pathwatch.server.monitoring.dashboards.queries import SIDECAR, Query


def _sidecars(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    span: int = 6,
    runbooks: Sequence[str] = (),
    no_value: str = "none",
) -> AnyPanel:
    return lines(
        title,
        description,
        unit,
        *queries,
        low=0,
        span=span,
        stacked=stacked,
        runbooks=runbooks,
        no_value=no_value,
    )


def _rate(counter: str, by: str, selector: str = SIDECAR) -> str:
    return f"sum by ({by}) (rate({counter}{{{selector}}}[$__rate_interval]))"


def _each(gauge: str) -> str:
    return f"max by (instance) ({gauge}{{{SIDECAR}}})"


def work() -> list[AnyPanel]:
    return [
        _sidecars(
            "Processor",
            "Cores in use; a sidecar that stays near its share keeps rounds waiting.",
            "suffix:cores",
            Query(_rate("process_cpu_seconds_total", "instance"), "{{instance}}"),
        ),
        _sidecars(
            "Memory",
            "Resident memory; bounded by the limits (docs/operations.md).",
            "bytes",
            Query(_each("process_resident_memory_bytes"), "{{instance}}"),
        ),
        _sidecars(
            "Received from streams",
            "Bytes of observations; 0 while runs are active: nothing comes.",
            "binBps",
            Query(_rate("pathwatch_ingest_bytes_total", "instance"), "{{instance}}"),
        ),
        _sidecars(
            "Close of a round to its verdict, 99 % within",
            "Lower = faster advice.",
            "s",
            Query(_each("pathwatch_window_close_seconds:p99"), "{{instance}}"),
            runbooks=["PathwatchWindowsCloseSlowly"],
        ),
        _sidecars(
            "Scrape",
            "What a scrape takes, and how many series it brings: cardinality that grows is worth a look.",
            "s",
            Query(_each("scrape_duration_seconds"), "{{instance}}"),
        ),
        _sidecars(
            "Series per scrape",
            "Grows with runs and groups, never with steps or ranks. Groups of a run past the limit "
            "`series_groups` are folded into one, `other`.",
            "locale",
            Query(_each("scrape_samples_scraped"), "{{instance}} series"),
            Query(f"sum by (instance) (pathwatch_other_groups{{{SIDECAR}}})", "{{instance}} groups in other"),
        ),
        _sidecars(
            "Open files",
            "Streams and connections hold one each; growth without more ranks is a leak.",
            "locale",
            Query(_each("process_open_fds"), "{{instance}}"),
        ),
        _sidecars(
            "Rounds waiting for their verdict",
            "Of all runs; more than a few for minutes: the sidecar does not keep up.",
            "locale",
            Query(f"sum by (instance) (pathwatch_unjudged_rounds{{{SIDECAR}}})", "{{instance}}"),
            runbooks=["PathwatchRoundsUnjudged"],
        ),
    ]


def grpc() -> list[AnyPanel]:
    unary = SIDECAR + ',grpc_type="unary"'
    return [
        _sidecars(
            "Calls",
            "Calls ended per second, by method.",
            "reqps",
            Query(_rate("grpc_server_handled_total", "grpc_method"), "{{grpc_method}}"),
        ),
        _sidecars(
            "Calls that failed",
            "By status; RESOURCE_EXHAUSTED: a limit; UNAUTHENTICATED, PERMISSION_DENIED: tokens.",
            "reqps",
            Query(
                _rate("grpc_server_handled_total", "grpc_code", SIDECAR + ',grpc_code!="OK"'), "{{grpc_code}}"
            ),
        ),
        _sidecars(
            "Time of a call, 99 % within",
            "Of calls with one answer; streams last as long as their job.",
            "s",
            Query(
                "histogram_quantile(0.99, "
                + _rate("grpc_server_handling_seconds_bucket", "le, grpc_method", unary)
                + ")",
                "{{grpc_method}}",
            ),
        ),
        _sidecars(
            "Open calls",
            "Streams of ranks, watchers and calls under way.",
            "locale",
            Query(f"sum by (grpc_method) (grpc_server_in_flight{{{SIDECAR}}})", "{{grpc_method}}"),
        ),
        _sidecars(
            "Messages",
            "Received and sent on all calls.",
            "suffix:msg/s",
            Query(_rate("grpc_server_msg_received_total", "instance"), "{{instance}} received"),
            Query(_rate("grpc_server_msg_sent_total", "instance"), "{{instance}} sent"),
            span=12,
        ),
        _sidecars(
            "Bytes",
            "Received and sent on all calls.",
            "binBps",
            Query(_rate("grpc_server_msg_received_bytes_total", "instance"), "{{instance}} received"),
            Query(_rate("grpc_server_msg_sent_bytes_total", "instance"), "{{instance}} sent"),
            span=12,
        ),
    ]


def storage() -> list[AnyPanel]:
    return [
        _sidecars(
            "File system of the data folder: free",
            "Higher = better; when it is full, acknowledgements stop and jobs buffer.",
            "percentunit",
            Query(
                f"{_each('pathwatch_data_folder_free_bytes')} / {_each('pathwatch_data_folder_size_bytes')}",
                "{{instance}}",
            ),
            runbooks=["PathwatchDataFolderNearlyFull", "PathwatchDataFolderFillingUp"],
        ),
        _sidecars(
            "Database",
            "Size on disk.",
            "bytes",
            Query(_each("pathwatch_database_bytes"), "{{instance}}"),
        ),
        _sidecars(
            "Age of the newest snapshot",
            "Lower = less is lost with the disk; it should not pass twice `--snapshot-minutes`.",
            "s",
            Query(_each("pathwatch_snapshot_age_seconds"), "{{instance}}"),
            runbooks=["PathwatchSnapshotTooOld"],
            no_value="no snapshot",
        ),
        _sidecars(
            "Commits that failed",
            "Should be 0: while it is not, nothing is acknowledged and jobs buffer.",
            "suffix:/s",
            Query(_rate("pathwatch_commit_failures_total", "instance"), "{{instance}}"),
            runbooks=["PathwatchCommitsFailing"],
        ),
        _sidecars(
            "Refused at limits",
            "By limit (docs/operations.md); others are not slowed.",
            "suffix:/s",
            Query(_rate("pathwatch_limit_refusals_total", "limit"), "{{limit}}"),
            runbooks=["PathwatchLimitReached"],
        ),
        _sidecars(
            "Turned away",
            "Calls without a token, or without the right; and files of tokens or TLS that could not be read "
            "again.",
            "suffix:/s",
            Query(_rate("pathwatch_refused_calls_total", "listener, reason"), "{{listener}} {{reason}}"),
            Query(_rate("pathwatch_reload_failures_total", "file"), "reload of {{file}} failed"),
            runbooks=["PathwatchCallsRefused", "PathwatchReloadFailing"],
        ),
        _sidecars(
            "Notifications",
            "By webhook and outcome; failed is tried again, dropped is lost.",
            "suffix:/s",
            Query(_rate("pathwatch_webhook_deliveries_total", "webhook, result"), "{{webhook}} {{result}}"),
            runbooks=["PathwatchWebhookFailing"],
            no_value="no webhooks",
        ),
        _sidecars(
            "Notifications waiting",
            "Should return to 0.",
            "locale",
            Query(f"max by (webhook) (pathwatch_webhook_pending{{{SIDECAR}}})", "{{webhook}}"),
            runbooks=["PathwatchWebhookFailing"],
            no_value="no webhooks",
        ),
        _sidecars(
            "Runs of each shard",
            "Runs whose lease it has (docs/scale.md); those of one that went are taken when somebody asks.",
            "locale",
            Query(_each("pathwatch_owned_runs"), "{{instance}}"),
            span=12,
            no_value="no shards",
        ),
        _sidecars(
            "Runs lost to another shard",
            "Should be 0: a shard that is stopped lets go of its runs, one that stands still for longer than "
            "a lease loses them.",
            "suffix:/s",
            Query(_rate("pathwatch_lease_losses_total", "instance"), "{{instance}}"),
            span=12,
            runbooks=["PathwatchLeasesLost"],
            no_value="no shards",
        ),
    ]
