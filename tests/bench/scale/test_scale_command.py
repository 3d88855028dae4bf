"""`python bench/scale` as a person calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.scale.command import main

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("how", [["bench/scale"], ["-m", "bench.scale"]])
def test_help_either_way(how: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, *how, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for said in ("--quick", "--json", "--markdown", "costs", "shards", "takeover", "relay"):
        assert said in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["memory"], "there is no part memory; there are costs, shards, takeover, relay"),
        (["costs", "--markdown", "page.md"], "--markdown writes the tables of all parts: name none"),
        (["--markdown", "{page}"], "has no line '<!-- Made by bench/scale: begin -->'"),
    ],
)
def test_what_is_of_no_use_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# No place for tables\n")
    with pytest.raises(SystemExit) as exited:
        main([argument.format(page=page) for argument in arguments])
    assert exited.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_page_that_has_the_tables_has_a_place_for_them() -> None:
    from bench.paste import check

    check(ROOT / "docs" / "scale.md", "bench/scale")
