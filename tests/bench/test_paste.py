"""The report goes where a page has its place for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.paste import check, marks, paste

MAKER = "bench/this"
BEGIN, END = marks(MAKER)


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nMore.\n")
    check(page, MAKER)
    paste(page, MAKER, "| new |")
    once = page.read_text()
    assert once == f"# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nMore.\n"
    paste(page, MAKER, "| new |")
    assert page.read_text() == once


def test_a_new_file_holds_the_report_alone(tmp_path: Path) -> None:
    check(tmp_path / "new.md", MAKER)
    paste(tmp_path / "new.md", MAKER, "| new |")
    assert (tmp_path / "new.md").read_text() == "| new |\n"


@pytest.mark.parametrize("text", ["# Title", f"{BEGIN} only", f"{END} before {BEGIN}"])
def test_a_page_without_a_place_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="between which tables could go"):
        check(page, MAKER)
