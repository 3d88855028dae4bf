"""docs/reliability.md names a test for each promise, and only tests that there are."""

import ast
import fnmatch
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/.-]+\.py)?(?:::([\w*]+))?(?:\[.*?\])?`")


def named() -> Iterator[tuple[str, str | None]]:
    """File and function of each test the page names; `::function` alone is of the file named before it."""
    path = ""
    for found, function in NAMED.findall(PAGE):
        path = found or path
        if found or function:
            yield path, function or None


@functools.cache
def definitions(path: str) -> set[str]:
    """Functions and classes of a file, and what it gives a name, hypothesis state machines among them."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_test_the_page_names_exists() -> None:
    tests = list(named())
    assert len(tests) > 50
    missing = [
        f"{path}::{function}"
        for path, function in tests
        if not (ROOT / path).exists() or (function and not fnmatch.filter(definitions(path), function))
    ]
    assert missing == []


def test_every_command_that_repeats_a_fault_names_files_that_exist() -> None:
    paths = re.findall(r"`pytest ([\w/.-]+)", PAGE)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_promise_names_a_test_or_a_target() -> None:
    promises, _ = PAGE.split("## Faults found", 1)
    rows = [line for line in promises.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [row for row in rows if not re.search(r"`(tests/|::|make )", row) and "| promise |" not in row]
    assert bare == []
