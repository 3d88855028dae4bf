"""The file of tokens, read again whenever it changes."""

from __future__ import annotations

from pathlib import Path

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.permissions import warn_if_open
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.access.tokens import TokenTable, read_tokens


def open_tokens(path: Path, option: str, counts: AccessCounts) -> Reloaded[TokenTable]:
    """The tokens of a file, named by its option. Raises OSError and TokensError, at first."""

    def read() -> TokenTable:
        tokens = read_tokens(path)
        warn_if_open(path)
        return tokens

    return Reloaded(f"{option}: {path}", [path], read, counts.reader_of(option))
