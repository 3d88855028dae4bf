"""A further part of a report: a heading, words, pictures and tables, drawn by the page in that order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as SVG; `text` says in words what it shows, for those who cannot see it."""

    svg: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as they are to be shown; numbers are aligned right."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    """None = undefined, shown as a dash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page."""

    title: str
    paragraphs: tuple[str, ...]
    """Plain text: what is shown, in which direction to read it, and what it does not show."""
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def cell_text(value: str | float | int | None) -> str:
    """A table's cell as text; four digits tell apart what is worth telling apart."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
