"""docs/operations.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from pathwatch.server.config import Limits, meanings

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def test_the_table_of_limits_is_that_of_the_code() -> None:
    section = PAGE.read_text().partition("## Limits")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | {getattr(Limits(), name)} | {meaning.unit} | {meaning.what} | {meaning.past.value} |"
        for name, meaning in meanings().items()
    ]
