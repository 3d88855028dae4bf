"""`pathwatch serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pathwatch.server.cli.blas import one_blas_thread
from pathwatch.server.cli.options import Assignments, Command, fail, require
from pathwatch.server.cli.redis_options import redis_options, to_redis_options
from pathwatch.server.cli.shard_options import shard_options
from pathwatch.server.cli.upstream_options import to_relay_config, upstream_options


@click.command("serve", cls=Command)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for everything durable; made if it is not there. Only a relay needs none.",
)
@click.option(
    "--listen",
    default="127.0.0.1:50051",
    show_default=True,
    metavar="HOST:PORT",
    help="gRPC; port 0 = a free one.",
)
@click.option(
    "--http",
    default="127.0.0.1:9464",
    show_default=True,
    metavar="HOST:PORT",
    help="Prometheus metrics and status page; port 0 = a free one.",
)
@click.option(
    "--store",
    default="sqlite",
    show_default=True,
    metavar="sqlite|URL",
    help="Where state is kept: in --data, or in the Redis redis://… (docs/scale.md).",
)
@redis_options
@shard_options
@upstream_options
@click.option(
    "--snapshot-minutes",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="M",
    help="How often a snapshot of the database is taken; 0 = never.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain of the server, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key, PEM.")
@click.option(
    "--tls-client-ca",
    type=click.Path(path_type=Path),
    help="Authority that clients must prove themselves with, PEM.",
)
@click.option("--http-tls", is_flag=True, help="HTTPS, with --tls-cert and --tls-key.")
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of bearer tokens (`pathwatch token`); gRPC calls need one.",
)
@click.option(
    "--http-tokens",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The same or another such file; metrics and API need one of its tokens with the scope read.",
)
@click.option(
    "--audit-log",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append control calls and refusals to this file, not to the log.",
)
@click.option(
    "--webhooks",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of whom to tell what changes (docs/notifications.md).",
)
@click.option("--public-url", default="", metavar="URL", help="Where people find the status page: for links.")
@click.option(
    "--max-connection-age",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long connections last before clients come again, losing nothing; 0 = for ever.",
)
@click.option(
    "--finished-series-seconds",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long /metrics still has a finished run, from its last data.",
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    help="Push metrics to this OpenTelemetry collector too, by OTLP over HTTP: http://collector:4318.",
)
@click.option(
    "--otlp-interval-seconds",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How often they are pushed.",
)
@click.option("--insecure", is_flag=True, help="Allow plaintext on addresses that other machines reach.")
@click.option(
    "--limit",
    cls=Assignments,
    metavar="NAME=VALUE",
    help="A bound of the service, repeatable; --check lists them.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    default="auto",
    show_default=True,
    help="How the log on stderr reads; auto = for people on a terminal, JSON lines elsewhere.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least severity that is logged.",
)
@click.option("--check", is_flag=True, help="Validate the configuration, list the limits and exit.")
def command(
    data: Path | None,
    listen: str,
    http: str,
    store: str,
    shard: str,
    lease_seconds: float,
    snapshot_minutes: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    http_tls: bool,
    tokens: Path | None,
    http_tokens: Path | None,
    audit_log: Path | None,
    webhooks: Path | None,
    public_url: str,
    max_connection_age: float,
    finished_series_seconds: float,
    otlp_endpoint: str | None,
    otlp_interval_seconds: float,
    insecure: bool,
    limit: tuple[str, ...],
    log_format: str,
    log_level: str,
    check: bool,
    **more: Any,
) -> None:
    """Run the sidecar until SIGTERM or Ctrl-C; with --upstream, a relay to one.

    The first line printed is `grpc=HOST:PORT http=HOST:PORT`, once both answer.
    """
    from pathwatch.server import config as configuration

    if (tls_cert is None) != (tls_key is None):
        fail("--tls-cert and --tls-key belong together, one of them is missing")
    if tls_client_ca is not None and tls_cert is None:
        fail("--tls-client-ca needs --tls-cert and --tls-key")
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = configuration.TlsFiles(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
    try:
        limits = configuration.parse_limits(limit)
        of_redis = to_redis_options(**{k: v for k, v in more.items() if k.startswith("redis_")})
    except ValueError as error:
        fail(error)
    serving: dict[str, Any] = {
        "listen": listen,
        "http": http,
        "insecure": insecure,
        "tls": tls,
        "http_tls": http_tls,
        "tokens": tokens,
        "http_tokens": http_tokens,
        "audit_log": audit_log,
        "max_connection_age_seconds": max_connection_age,
        "limits": limits,
    }
    upstream = {k: v for k, v in more.items() if k.startswith("upstream")}
    relay = to_relay_config(click.get_current_context(), serving, **upstream)
    config: configuration.ServerConfig | configuration.RelayConfig
    if relay is not None:
        config = relay
    elif data is None:
        fail("Missing option '--data': the folder for everything durable")
    else:
        config = configuration.ServerConfig(
            **serving,
            data=data,
            store=store,
            redis=of_redis,
            shard=shard,
            lease_seconds=lease_seconds,
            snapshot_minutes=snapshot_minutes,
            webhooks=webhooks,
            public_url=public_url,
            finished_series_seconds=finished_series_seconds,
            otlp_endpoint=otlp_endpoint,
            otlp_interval_seconds=otlp_interval_seconds,
        )
    problems = configuration.check(config)
    if problems:
        fail("; ".join(problems))
    if configuration.is_redis_url(store):
        require("redis", "redis")
    if check:
        click.echo("the configuration is valid")
        for name, meaning in configuration.meanings().items():
            value = f"{getattr(limits, name)} {meaning.unit}"
            click.echo(f"limits.{name}: {value} {meaning.what}; past it, {meaning.past.value}")
        return
    require(
        "server",
        "grpc_health",
        "grpc_reflection",
        "prometheus_client",
        "rapidfuzz",
        "structlog",
        "urllib3",
    )
    one_blas_thread()
    import asyncio

    from pathwatch.server.app import Addresses, StartError, serve
    from pathwatch.server.logs.setup import set_up_logging

    set_up_logging(log_format, log_level)

    def ready(addresses: Addresses) -> None:
        click.echo(f"grpc={addresses.grpc} http={addresses.http}")

    try:
        code = asyncio.run(serve(config, ready=ready))
    except StartError as error:
        fail(error)
    sys.exit(code)
