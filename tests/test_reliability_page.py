"""docs/reliability.md names only tests that there are, and says something of each."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
TESTS = re.findall(r"`(tests/[\w/.-]+\.py)::([\w:]+)`", PAGE)


def functions(path: str) -> set[str]:
    """Test functions of a file; methods as Class::function, state machines by the name they have."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_test_the_page_names_exists() -> None:
    assert len(TESTS) > 15
    missing = [
        f"{path}::{name}" for path, name in TESTS if not (ROOT / path).exists() or name not in functions(path)
    ]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    promises, faults = PAGE.split("## Faults found", 1)
    rows = [line for line in promises.splitlines() if line.startswith("|") and "---" not in line]
    bare = [row for row in rows if "`tests/" not in row and not row.startswith("| promise |")]
    assert bare == []
    assert re.search(r"^\| .*\| `", faults, re.M)
