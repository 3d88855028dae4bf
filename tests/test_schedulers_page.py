"""docs/schedulers.md: its Python imports what there is, its files and variables are those of the examples."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "schedulers.md").read_text()


SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def imported(tree: ast.Module) -> dict[str, object]:
    """What the imports of a snippet make known."""
    names: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), names)  # noqa: S102  # our own page
    return names


def made(tree: ast.Module, names: Mapping[str, object]) -> object:
    """The stopper or pruner that the code makes."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [call for call in map(ast.unparse, calls) if call.startswith(("PathwatchS", "PathwatchP"))]
    return eval(call, dict(names))  # noqa: S307


def docstring_code(module: str) -> str:
    """The indented block of the docstring of a module's class, which is read without importing it."""
    tree = ast.parse((ROOT / "integrations" / "pathwatch" / "integrations" / module).read_text())
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    lines = (ast.get_docstring(kind) or "").splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the page names is there."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    "snippet", [*SNIPPETS, docstring_code("ray/stopper.py"), docstring_code("optuna/pruner.py")]
)
def test_what_the_snippets_make_is_let_ask(snippet: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server of the page is on no machine; without credentials nobody would look for it."""
    import optuna
    from ray.tune import Stopper

    from pathwatch.client import Credentials
    from pathwatch.integrations.optuna import RUN, PathwatchPruner
    from pathwatch.integrations.ray import PathwatchStopper

    tree = ast.parse(snippet)
    ours = {kind.__name__: kind for kind in (PathwatchStopper, PathwatchPruner, Credentials)}
    asks = made(tree, imported(tree) if snippet in SNIPPETS else ours)
    if isinstance(asks, Stopper):
        assert asks("a-run", {}) is False
    else:
        assert isinstance(asks, PathwatchPruner)
        study = optuna.create_study()
        trial = study.ask()
        trial.set_user_attr(RUN, "a-run")
        assert asks.prune(study, study.trials[0]) is False
    (said,) = [record.getMessage() for record in caplog.records if record.name == "pathwatch.integrations"]
    assert re.search(r"pathwatch server at sidecar:50051 did not|no pathwatch server at sidecar:50051", said)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_what_the_snippets_attach_is_let_in_like_what_asks(snippet: str) -> None:
    (attached,) = re.findall(r"attach\((.*)\)$", snippet, re.MULTILINE)
    assert 'server="sidecar:50051", credentials=Credentials(root_ca="ca.pem")' in attached


def test_variables_of_the_page_are_read_somewhere() -> None:
    scripts = "".join(path.read_text() for path in (ROOT / "examples").glob("[sk]*/*.s*"))
    for variable in ("STOP_GRACE_SECONDS", "RETRY_SECONDS", "PATHWATCH_PORT"):
        (default,) = set(re.findall(rf"{variable}:-([^}}]+)}}", scripts))
        assert re.search(rf"`{variable}`[^.]*{default}|{default}[^.]*`{variable}`", PAGE), variable


def test_files_of_the_page_are_there() -> None:
    for folder in ("slurm", "katib"):
        files = {path.name for path in (ROOT / "examples" / folder).iterdir()}
        assert {name for name in files if f"`{name}" in PAGE or f"[{name}]" in PAGE} == files
