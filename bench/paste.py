"""Putting a report into a page of the documentation."""

from __future__ import annotations

from pathlib import Path


def check(path: Path, maker: str) -> None:
    """Whether the report of `maker` (e.g. "bench/overhead") can go there, before minutes are spent on it.

    Raises:
        ValueError: the file is there and has no place for it.
    """
    begin, end = marks(maker)
    if path.exists() and not (begin in (text := path.read_text()) and end in text.partition(begin)[2]):
        raise ValueError(f"{path} has no line {begin!r} with {end!r} after it, between which tables could go")


def paste(path: Path, maker: str, report: str) -> None:
    """Write the report of `maker` between its marks in a page; to a new file as it is."""
    if not path.exists():
        path.write_text(f"{report}\n")
        return
    begin, end = marks(maker)
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{report}\n\n{end}{after}")


def marks(maker: str) -> tuple[str, str]:
    """The lines around what `maker` writes."""
    return f"<!-- Made by {maker}: begin -->", f"<!-- Made by {maker}: end -->"
