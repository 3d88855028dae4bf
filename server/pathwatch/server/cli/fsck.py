"""`pathwatch fsck`."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathwatch.server.cli.options import Command, fail, json_option, print_json, require

if TYPE_CHECKING:
    from pathwatch.server.store.finding import Finding
    from pathwatch.server.store.sqlite_restore import Restored


class _Folder(click.Path):
    """A folder that is there; says so where somebody means a Redis."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pathwatch.server.config import is_redis_url

        if is_redis_url(str(value)):
            fail(
                "fsck checks data folders; Redis checks its own files when it starts (and with "
                "redis-check-aof and redis-check-rdb), and the server says at its start what it cannot read"
            )
        return super().convert(value, param, ctx)


@click.command("fsck", cls=Command)
@click.argument("folder", metavar="DIR", type=_Folder(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--restore",
    is_flag=True,
    help="Where the database is damaged or missing: put the newest good snapshot in its place, and keep it.",
)
@json_option
def command(folder: Path, restore: bool, as_json: bool) -> None:
    """Check the data folder DIR of a server that is not running; changes nothing without --restore.

    Exit code 0 = good (or restored), 1 = something is wrong, 2 = it cannot be checked.
    """
    require("server", "rapidfuzz")
    from pathwatch.server.store.finding import Severity
    from pathwatch.server.store.interface import StoreError
    from pathwatch.server.store.sqlite_folder import FILE_NAME, FolderLock
    from pathwatch.server.store.sqlite_restore import restore as put_in_place
    from pathwatch.server.store.sqlite_snapshots import Snapshots

    path = folder / FILE_NAME
    empty = not path.exists() or path.stat().st_size == 0
    restored = None
    if empty and not Snapshots(folder).all():
        fail(f"there is neither a database nor a snapshot in {folder}")
    try:
        with closing(FolderLock(folder)):
            findings = [] if empty and restore else _findings(folder, path)
            damaged = empty or any(finding.severity is Severity.DAMAGE for finding in findings)
            if damaged and restore:
                restored = put_in_place(folder)
    except StoreError as error:
        fail(error)
    wrong = any(finding.severity is not Severity.NOTE for finding in findings)
    _print(folder, findings, restored, good=not wrong, as_json=as_json)
    sys.exit(1 if wrong and restored is None else 0)


def _findings(folder: Path, path: Path) -> list[Finding]:
    from pathwatch.server.engine.stored_content import REMEDY, unreadable_content
    from pathwatch.server.store.finding import Finding, Severity
    from pathwatch.server.store.interface import StoreError
    from pathwatch.server.store.sqlite_check import database_findings, snapshot_findings
    from pathwatch.server.store.sqlite_connection import read_only
    from pathwatch.server.store.sqlite_reads import SqliteReader

    findings = list(database_findings(path))
    if not findings:
        try:
            findings.extend(unreadable_content(SqliteReader(path, read_only(path))))
        except StoreError as error:  # rows that cannot even be told apart
            findings.append(
                Finding(item=str(path), severity=Severity.DAMAGE, problem=str(error), remedy=REMEDY)
            )
    return [*findings, *snapshot_findings(folder)]


def _print(
    folder: Path, findings: list[Finding], restored: Restored | None, *, good: bool, as_json: bool
) -> None:
    if as_json:
        for finding in findings:
            print_json(
                {
                    "type": "finding",
                    "item": finding.item,
                    "severity": finding.severity.value,
                    "problem": finding.problem,
                    "remedy": finding.remedy,
                }
            )
        print_json(
            {
                "type": "summary",
                "folder": str(folder),
                "good": good,
                "findings": len(findings),
                "restored": None if restored is None else str(restored.snapshot.path),
                "aside": None if restored is None or restored.aside is None else str(restored.aside),
            }
        )
        return
    for finding in findings:
        click.echo(f"{finding.severity}: {finding.item}: {finding.problem}; {finding.remedy}")
    if restored is not None:
        kept = "" if restored.aside is None else f"; what stood there is kept as {restored.aside}"
        click.echo(f"restored {restored.snapshot}{kept}")
    elif good:
        click.echo(f"{folder} is good")
