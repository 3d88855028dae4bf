"""docs/schedulers.md: its Python imports what there is, its files and variables are those of the examples."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "schedulers.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_snippets_use_what_there_is(snippet: str) -> None:
    tree = ast.parse(snippet)
    names: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)  # noqa: S102  # our own page
    (ours,) = {"PathwatchStopper", "PathwatchPruner"} & names.keys()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (made,) = [ast.unparse(call) for call in calls if ast.unparse(call.func) == ours]
    assert eval(made, names) is not None  # noqa: S307


def test_variables_of_the_page_are_read_somewhere() -> None:
    scripts = "".join(path.read_text() for path in (ROOT / "examples").glob("[sk]*/*.s*"))
    for variable in ("ENDPOINT_SECONDS", "STOP_GRACE_SECONDS", "RETRY_SECONDS", "PATHWATCH_PORT"):
        (default,) = set(re.findall(rf"{variable}:-([^}}]+)}}", scripts))
        assert re.search(rf"`{variable}`[^.]*{default}|{default}[^.]*`{variable}`", PAGE), variable


def test_files_of_the_page_are_there() -> None:
    for folder in ("slurm", "katib"):
        files = {path.name for path in (ROOT / "examples" / folder).iterdir()}
        assert {name for name in files if f"`{name}" in PAGE or f"[{name}]" in PAGE} == files
