"""Which commands there are. Each lives in a module of its own, imported when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple, NoReturn

import click


class _Entry(NamedTuple):
    module: str
    help: str


COMMANDS = {
    "serve": _Entry("serve", "Run the sidecar."),
    "fsck": _Entry("fsck", "Check the data folder of a server, restore its last snapshot."),
    "token": _Entry("token", "Make a bearer token."),
    "webhooks": _Entry("webhooks", "Check the webhooks of a server, or send them a test."),
    "monitoring": _Entry("monitoring", "Write a ready set-up of Prometheus and Grafana."),
    "demo": _Entry("demo", "Train, watch, judge and draw one real run on this machine."),
    "replay": _Entry("replay", "Send a recorded trace through a server and print what it says."),
    "runs": _Entry("runs", "List the runs of a server."),
    "signal": _Entry("signal", "Show what a run should do, and why."),
    "watch": _Entry("watch", "Follow a run live until it is finished."),
    "gate": _Entry("gate", "Wait until a run has generalized or should stop (for Slurm and CI)."),
    "finish": _Entry("finish", "End a run whose job has gone without ending it."),
    "checkpoints": _Entry("checkpoints", "Rank the checkpoints of a run, best first."),
    "cohorts": _Entry("cohorts", "The paper's figures for a recorded run, by when samples were memorized."),
    "bound": _Entry(
        "bound", "Effective dimension and variance term of the paper's bound, over a recorded run."
    ),
    "correlate": _Entry("correlate", "Hold a run's metrics against scores of its checkpoints."),
    "export": _Entry("export", "Write what a server kept of a run as a trace."),
    "report": _Entry("report", "Draw a run as one HTML file and one PNG."),
}


class _LazyGroup(click.Group):
    """Knows its commands by name; imports one only when it is called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"pathwatch.server.cli.{entry.module}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """As click's, but every error is one line on stderr and exit code 2."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"pathwatch: {' '.join(error.format_message().split())}", err=True)
            sys.exit(2)
        except click.Abort:  # Ctrl-C
            sys.exit(130)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every option of a command can also be set in the environment as PATHWATCH_<OPTION>, or in a YAML "
    "file given with --config.",
)
@click.version_option(package_name="pathwatch", prog_name="pathwatch")
@click.pass_context
def pathwatch(ctx: click.Context) -> None:
    """Tells a mixture-of-experts training run when it has stopped memorizing and started to generalize,
    without a test set."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
