"""Families of series, the points in them, and their lines, which both formats of Prometheus share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from pathwatch.server.exporter.names import PREFIX

Kind = Literal["gauge", "counter", "info"]
_SUFFIXES: Mapping[Kind, str] = {"gauge": "", "counter": "_total", "info": "_info"}


class Family:
    """Series of one name, which is given without prefix and without the suffix of its kind."""

    __slots__ = ("help", "kind", "name", "sample_name")

    def __init__(self, name: str, text: str, kind: Kind = "gauge") -> None:
        self.name = PREFIX + name
        """As OpenMetrics calls the family."""
        self.sample_name = self.name + _SUFFIXES[kind]
        """As its series are called, and the family in the text format."""
        self.help = text
        self.kind = kind

    def header(self, *, openmetrics: bool) -> str:
        """The lines above those of its series."""
        if openmetrics:
            return f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        kind = "gauge" if self.kind == "info" else self.kind
        return f"# HELP {self.sample_name} {self.help}\n# TYPE {self.sample_name} {kind}\n"


class Labels:
    """Labels of series, written once for all families they are in."""

    __slots__ = ("pairs", "text")

    def __init__(self, pairs: tuple[tuple[str, str], ...], text: str) -> None:
        self.pairs = pairs
        self.text = text
        """As between the braces of a line."""

    @classmethod
    def of_run(cls, run: str) -> Labels:
        """The label that series of runs begin with."""
        return cls((("run", run),), f'run="{_escaped(run)}"')

    def and_(self, name: str, value: str) -> Labels:
        """These and one more."""
        return Labels((*self.pairs, (name, value)), f'{self.text},{name}="{_escaped(value)}"')


Point: TypeAlias = tuple[Family, Labels, float]
"""One series and its value."""


def lines_by_family(points: Iterable[Point]) -> dict[Family, str]:
    """The lines of the points."""
    lines: defaultdict[Family, list[str]] = defaultdict(list)
    for family, labels, value in points:
        lines[family].append(f"{family.sample_name}{{{labels.text}}} {value!r}\n")
    return {family: "".join(of_family) for family, of_family in lines.items()}


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
