"""What `python bench/every` refuses, and what it makes of figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.every import command
from bench.every.running import BENCHES, ROOT
from bench.every.table import markdown
from bench.figures import Figure, Unit, read, write


def ratio(name: str, value: float) -> Figure:
    return Figure(name=name, value=value, unit=Unit.RATIO, higher_is_better=True, aim=0.6, detail="a and b")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, list[float]]], Path]:
    """Benches that give one made-up figure each, another value every time; the file of what is recorded."""

    def set_up(values: dict[str, list[float]]) -> Path:
        left = {bench: iter(of_bench) for bench, of_bench in values.items()}

        def run(bench: str, *, quick: bool) -> list[Figure]:
            return [ratio(f"{bench}.speed", next(left[bench]))]

        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(command, "BENCHES", tuple(values))
        monkeypatch.setattr(command, "RECORDED", tmp_path / "recorded.json")
        return tmp_path / "recorded.json"

    return set_up


def test_every_bench_is_there() -> None:
    assert [bench for bench in BENCHES if not (ROOT / "bench" / bench / "__main__.py").is_file()] == []


def test_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "there is no bench nonsense; there are ingest" in capsys.readouterr().err


def test_what_is_measured_is_recorded(measured: Callable[[dict[str, list[float]]], Path]) -> None:
    recorded = measured({"one": [0.9], "two": [0.5]})
    command.main(["--record"])
    assert read(recorded) == [ratio("one.speed", 0.9), ratio("two.speed", 0.5)]


def test_without_a_record_nothing_is_compared(
    measured: Callable[[dict[str, list[float]]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    measured({"one": [0.9]})
    with pytest.raises(SystemExit) as ended:
        command.main(["--check"])
    assert ended.value.code == 2
    assert "bench/every --record" in capsys.readouterr().err


def test_a_regression_fails_the_check(
    measured: Callable[[dict[str, list[float]]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        measured({"one": [0.5, 0.5, 0.5], "two": [0.7]}), [ratio("one.speed", 0.8), ratio("two.speed", 0.8)]
    )
    with pytest.raises(SystemExit) as ended:
        command.main(["--check"])
    assert ended.value.code == 1
    assert "REGRESSION: one.speed is 60% worse than recorded" in capsys.readouterr().out


def test_as_good_as_recorded_passes(measured: Callable[[dict[str, list[float]]], Path]) -> None:
    write(measured({"one": [0.5, 0.79]}), [ratio("one.speed", 0.8)])
    with pytest.raises(SystemExit) as ended:
        command.main(["--check"])
    assert ended.value.code == 0


def test_the_table_says_what_is_missed(
    measured: Callable[[dict[str, list[float]]], Path], tmp_path: Path
) -> None:
    measured({"one": [0.5], "two": [0.7]})
    command.main(["--markdown", str(tmp_path / "page.md")])
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "| one.speed | 0.5 | ≥ 0.6 | **missed** | a and b |" in lines
    assert "| two.speed | 0.7 | ≥ 0.6 | met | a and b |" in lines
    assert markdown([ratio("one.speed", 0.5)]).count("\n| ") == 3
