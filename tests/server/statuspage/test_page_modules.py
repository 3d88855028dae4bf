"""The page's own files fit together: there is no build step that would notice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pathwatch.server.statuspage import files
from pathwatch.v1 import signal_pb2

STATIC = Path(files.__file__).parent / "static"
INDEX = (STATIC / "index.html").read_text()
MODULES = {path.name: path.read_text() for path in (STATIC / "js").glob("*.js")}


def test_what_the_page_names_is_there() -> None:
    named = re.findall(r'(?:href|src)="(static/[^"]+)"', INDEX)
    assert len(named) > 10
    assert [path for path in named if not (STATIC.parent / path).is_file()] == []


def test_modules_are_asked_for_at_once_and_not_level_by_level() -> None:
    preloaded = re.findall(r'rel="modulepreload" href="static/js/([^"]+)"', INDEX)
    assert preloaded == sorted(set(preloaded))
    assert set(preloaded) == set(_reached("main.js")) - {"main.js"}


def test_no_module_lies_about_unused() -> None:
    assert set(MODULES) == {*_reached("main.js"), "theme-early.js"}


def test_imports_name_what_is_exported() -> None:
    for name, text in MODULES.items():
        for wanted, source in _imports(text):
            exported = set(
                re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", MODULES[source], re.M)
            )
            assert wanted <= exported, f"{name} imports {wanted - exported} from {source}"


def test_nothing_becomes_html() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function"
    )
    assert [name for name, text in MODULES.items() if forbidden.search(text)] == []
    assert re.findall(r"\s(?:style|on\w+)=", INDEX) == []


def test_every_colour_that_is_used_is_set() -> None:
    """A property that nobody sets is no error to a browser: it draws nothing."""
    sheets = "".join(path.read_text() for path in (STATIC / "css").glob("*.css"))
    known = set(re.findall(r"(--[\w-]+):", sheets))
    used = set(re.findall(r"var\((--[\w-]+)\)", sheets))
    used |= set(re.findall(r'"(--[\w-]+)"', "".join(MODULES.values())))
    # Put together by modules.
    (lines,) = re.findall(r"^const COLOURS = (\d+);", MODULES["lines.js"], re.M)
    used |= {f"--line-{line}" for line in range(int(lines))}
    used |= {f"--phase-{name.removeprefix('PHASE_')}" for name in signal_pb2.Phase.keys()[1:]}
    used |= {f"--action-{action}" for action in ("CHECKPOINT", "STOP")}
    assert used - known == set()


def _imports(text: str) -> Iterator[tuple[set[str], str]]:
    for names, source in re.findall(r'^import \{([^}]+)\} from "\./([^"]+)";', text, re.M):
        yield {name.strip() for name in names.split(",")}, source


def _reached(name: str) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(source for _, source in _imports(MODULES[module]))
    return found
