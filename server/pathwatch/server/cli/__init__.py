"""The `pathwatch` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `pathwatch` script."""
    try:
        from pathwatch.server.cli.root import pathwatch
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in {"click", "yaml", "rich"}:
            raise
        print("the command line needs: pip install 'pathwatch[cli]'", file=sys.stderr)
        sys.exit(2)
    pathwatch()
