"""`pathwatch token`."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import click

from pathwatch.server.cli.options import Command, fail


@click.command("token", cls=Command)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["ingest", "read", "control"]),
    multiple=True,
    required=True,
    help="What it is for, repeatable.",
)
@click.option("--run", "runs", metavar="GLOB", multiple=True, help="Runs it is for, repeatable; all if none.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="From that day on, UTC, it opens nothing.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the token to this new file, for its owner's eyes only, not to the terminal.",
)
def command(
    name: str, scopes: tuple[str, ...], runs: tuple[str, ...], expires: datetime | None, out: Path | None
) -> None:
    """Make a bearer token for NAME.

    Prints its entry, with the hash alone, to be appended to the file of `serve --tokens`; the token itself
    goes to stderr, once, or to a file:

    pathwatch token job-a --scope ingest --run 'abc-*' --out job-a.token >> tokens.yaml
    """
    import yaml

    from pathwatch.server.access.tokens import TokensError, hash_of, new_secret, parse_tokens

    secret = new_secret()
    entry: dict[str, object] = {"name": name, "sha256": hash_of(secret).hex(), "scopes": list(scopes)}
    if runs:
        entry["runs"] = list(runs)
    if expires is not None:
        entry["expires"] = expires.date()
    text = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True)
    try:
        parse_tokens(text.encode())
    except TokensError as error:
        fail(error)
    if out is None:
        click.echo(f"the token of {name}, shown this once: {secret}", err=True)
    else:
        _write_secret(out, secret)
    click.echo(text, nl=False)


def _write_secret(path: Path, secret: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
