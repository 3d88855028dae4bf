"""Putting the report into a page of the documentation."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- Made by bench/overhead: begin -->"
END = "<!-- Made by bench/overhead: end -->"


def check(path: Path) -> None:
    """Whether the report can go there, before minutes are spent on it.

    Raises:
        ValueError: the file is there and has no place for it.
    """
    if path.exists() and not (BEGIN in (text := path.read_text()) and END in text.partition(BEGIN)[2]):
        raise ValueError(f"{path} has no line {BEGIN!r} with {END!r} after it, between which tables could go")


def paste(path: Path, report: str) -> None:
    """Write the report between the marks of a page; to a new file as it is."""
    if not path.exists():
        path.write_text(f"{report}\n")
        return
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}")
