"""`pathwatch webhooks`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pathwatch.server.cli.options import Command, fail, require


@click.command("webhooks", cls=Command)
@click.argument("action", type=click.Choice(["check", "test"]))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Only this webhook of the file.")
def command(action: str, file: Path, name: str | None) -> None:
    """Check the FILE of `serve --webhooks`, or send a test notification to each of its webhooks.

    `check` lists them, without what is secret. `test` says what each receiver answered, and exits with 1
    where one of them did not take it.
    """
    from pathwatch.server.config import SecretError, WebhooksError, read_webhooks

    try:
        webhooks = read_webhooks(file).webhooks
        if name is not None:
            webhooks = tuple(webhook for webhook in webhooks if webhook.name == name)
            if not webhooks:
                fail(f"{file}: there is no webhook {name!r}")
        if action == "check":
            for webhook in webhooks:
                events = ", ".join(sorted(webhook.events))
                click.echo(f"{webhook.name}: {webhook.format} to {webhook.receiver()}: {events}")
            return
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except (SecretError, WebhooksError) as error:
        fail(error)
    require("server", "urllib3")
    from pathwatch.server.notify.trial import send_test

    failed = False
    for webhook in webhooks:
        delivered, said = send_test(webhook)
        failed = failed or not delivered
        click.echo(f"{webhook.name}: {'delivered' if delivered else 'not delivered'}: {said}")
    sys.exit(1 if failed else 0)
