"""A dashboard's JSON as Grafana takes it: panels, queries, and what it puts in the place of variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
Values: TypeAlias = Mapping[str, str | Sequence[str]]

MACRO = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|([A-Za-z_]\w*))")


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a dashboard."""

    where: str
    expr: str
    instant: bool


class Dashboard:
    """One JSON file."""

    def __init__(self, path: Path) -> None:
        self.json: Json = json.loads(path.read_text())

    @property
    def items(self) -> list[Json]:
        """Rows and panels, those inside of rows too."""
        return [found for item in self.json["panels"] for found in [item, *item.get("panels", [])]]

    @property
    def panels(self) -> list[Json]:
        """Panels other than rows."""
        return [item for item in self.items if item["type"] != "row"]

    @property
    def variables(self) -> dict[str, Json]:
        """By name."""
        return {variable["name"]: variable for variable in self.json["templating"]["list"]}

    def panel(self, title: str) -> Json:
        """The one of that title."""
        (found,) = [panel for panel in self.panels if panel["title"] == title]
        return found

    def queries(self) -> Iterator[Asked]:
        """Of all panels and annotations."""
        for panel in self.panels:
            for target in panel["targets"]:
                where = f"{panel['title']} {target['refId']}"
                yield Asked(where, target["expr"], target.get("instant", False))
        for annotation in self.json["annotations"].get("list", []):
            yield Asked(f"annotation {annotation['name']}", annotation["expr"], False)

    def filled(self, expr: str, values: Values) -> str:
        """The query as Grafana sends it; a variable without a value has the one for All."""

        def put(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            if name in MACROS:
                return MACROS[name]
            variable = self.variables[name]
            if name not in values:
                return str(variable["allValue"])
            return escaped(values[name], several=variable["multi"] or variable["includeAll"])

        return MACRO.sub(put, expr)


MACROS = {"__interval": "1s", "__rate_interval": "4s"}
"""For a Prometheus that scrapes every second: four scrapes, and a step of one."""


def escaped(value: str | Sequence[str], *, several: bool) -> str:
    """What Grafana's Prometheus data source makes of a variable's value, inside of quotes."""
    if not several:
        assert isinstance(value, str)
        return value.replace("\\", "\\\\").replace("'", "\\\\'")
    if isinstance(value, str):
        return re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))
    each = [escaped(item, several=True) for item in value]
    return each[0] if len(each) == 1 else f"({'|'.join(each)})"
