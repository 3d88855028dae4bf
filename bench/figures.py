"""What a bench found: figures with their aims, as lines for a reader and as JSON for `bench/every`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Unit(StrEnum):
    """What a figure counts. Ratios hold on any machine, the others on the one they were taken on."""

    RATIO = "ratio"
    SECONDS = "s"
    MEGABYTES = "MB"
    EXPONENT = "exponent"
    PART = "part"
    """Of a limit that differs from run to run, as the speed of a virtual disk does: told, not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number."""

    name: str
    """Dotted, begins with the bench's name: `ingest.bytes.stream`."""
    value: float
    unit: Unit
    higher_is_better: bool
    aim: float | None = None
    """What it should be at least, or at most; None = only watched."""
    detail: str = ""
    """What was held against what, in numbers, for a reader: "512 MB/s; bare echo 830 MB/s"."""

    @property
    def met(self) -> bool | None:
        """Whether it is as good as wanted; None without an aim."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.higher_is_better else self.value <= self.aim

    def worse_than(self, before: float) -> float:
        """By which part it is worse than it was: 0.25 = a quarter worse; negative = better."""
        if self.higher_is_better:
            return before / self.value - 1 if self.value > 0 else float("inf")
        return self.value / before - 1

    def line(self) -> str:
        """For a reader."""
        verdict = {None: "", True: "  met", False: "  MISSED"}[self.met]
        aim = "" if self.aim is None else f" (aim {'>=' if self.higher_is_better else '<='} {self.aim:g})"
        return f"{self.name:<44} {told(self):>12}{aim}{verdict}  {self.detail}".rstrip()


def told(figure: Figure) -> str:
    """The value with its unit."""
    match figure.unit:
        case Unit.SECONDS if figure.value < 1:
            return f"{figure.value * 1000:.3g} ms"
        case Unit.MEGABYTES:
            return f"{figure.value:.0f} MB"
        case Unit.SECONDS:
            return f"{figure.value:.3g} s"
        case _:
            return f"{figure.value:.3g}"


def write(path: Path, figures: Iterable[Figure]) -> None:
    """The figures and the machine they were taken on, as JSON."""
    document = {"machine": machine(), "figures": [asdict(figure) for figure in figures]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> list[Figure]:
    """The figures of a file that `write` made."""
    document = json.loads(path.read_text())
    return [Figure(**{**figure, "unit": Unit(figure["unit"])}) for figure in document["figures"]]


def machine() -> dict[str, object]:
    """What figures depend on besides the code."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def say(figures: Sequence[Figure]) -> None:
    """One line each."""
    for figure in figures:
        print(figure.line(), flush=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
