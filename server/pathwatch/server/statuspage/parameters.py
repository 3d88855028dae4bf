"""Parameters of a query, read strictly: what is not understood is an error, never ignored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from pathwatch.server.statuspage.failures import bad_request

MAX_LENGTH = 16384
"""Characters of a query."""
MAX_FIELDS = 16
_WHOLE = re.compile(r"-?[0-9]{1,16}")


class Parameters:
    """The parameters of one request, each at most once."""

    def __init__(self, query: str, known: Collection[str]) -> None:
        """Raises ApiError where the query cannot be read or holds a name that is not `known`."""
        self._values: Mapping[str, str] = {}
        if not query:
            return
        if len(query) > MAX_LENGTH:
            raise bad_request(f"the query has {len(query)} characters; at most {MAX_LENGTH} are read")
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
            )
        except ValueError as error:
            raise bad_request(
                f"the query cannot be read ({error}); write name=value&name=value, in UTF-8, percent-encoded"
            ) from error
        self._values = dict(pairs)
        if unknown := sorted(self._values.keys() - set(known)):
            there_are = ", ".join(sorted(known)) or "none"
            raise bad_request(f"there is no parameter {unknown[0]!r} here; there are: {there_are}")
        if len(self._values) < len(pairs):
            raise bad_request("a parameter is given more than once; give each once")

    def text(self, name: str) -> str | None:
        """As it was given; None = it was not."""
        return self._values.get(name)

    def names(self, name: str, *, most: int) -> tuple[str, ...] | None:
        """What stands between commas; None = the parameter was not given."""
        text = self._values.get(name)
        if text is None:
            return None
        names = tuple(dict.fromkeys(text.split(",")))
        if not all(names) or len(names) > most:
            raise bad_request(f"{name}: must be 1 to {most} names with commas between them")
        return names

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        text = self._values.get(name)
        if text is None:
            return default
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise bad_request(f"{name}: must be a whole number from {least} to {most}, not {text!r}")
        return int(text)
