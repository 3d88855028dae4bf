"""`pathwatch monitoring`."""

from __future__ import annotations

from pathlib import Path

import click

from pathwatch.server.cli.options import Command, fail

PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("monitoring", cls=Command)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder for the files.",
)
@click.option(
    "--target",
    "targets",
    metavar="HOST:PORT",
    multiple=True,
    default=("127.0.0.1:9464",),
    show_default=True,
    help="A sidecar's --http, as Prometheus reaches it; repeatable.",
)
@click.option(
    "--tls", is_flag=True, help="The sidecars speak TLS (--http-tls), trusting the public authorities."
)
@click.option("--tls-ca", type=PEM, help="They speak TLS, trusting this PEM file.")
@click.option("--token-file", type=PEM, help="File that holds a bearer token with the scope read.")
@click.option(
    "--prometheus",
    "prometheus_url",
    metavar="URL",
    default="http://127.0.0.1:9090",
    show_default=True,
    help="Where Grafana reaches Prometheus.",
)
@click.option(
    "--runbooks",
    metavar="URL",
    help="Where your copy of docs/runbooks is read, for links from alerts and dashboards; ends with /.",
)
def command(
    out: Path,
    targets: tuple[str, ...],
    tls: bool,
    tls_ca: Path | None,
    token_file: Path | None,
    prometheus_url: str,
    runbooks: str | None,
) -> None:
    """Write a ready set-up of Prometheus and Grafana: scrape, rules and alerts, data source, dashboards.

    DIR must be new or empty: nothing that you have changed is written over.
    """
    from pathwatch.server.config.addresses import split_address
    from pathwatch.server.monitoring.kit import Sidecars, kit_files

    for target in targets:
        try:
            split_address(target)
        except ValueError as error:
            fail(f"--target: {error}")
    if runbooks is not None and not runbooks.endswith("/"):
        fail(f"--runbooks: {runbooks!r} must end with /, names of pages come after it")
    sidecars = Sidecars(
        targets=targets,
        tls=tls or tls_ca is not None,
        ca=tls_ca and tls_ca.resolve(),
        token_file=token_file and token_file.resolve(),
    )
    folder = out.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            fail(f"{out} is not empty; name a new folder")
        for name, text in kit_files(
            folder, sidecars, prometheus_url=prometheus_url, runbooks=runbooks
        ).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    except OSError as error:
        fail(f"cannot write {error.filename or out}: {error.strerror}")
    click.echo(f"prometheus --config.file={folder / 'prometheus.yml'}")
    click.echo(f"GF_PATHS_PROVISIONING={folder / 'grafana' / 'provisioning'} grafana server")
