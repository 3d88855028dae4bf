"""`runs`, `signal`, `checkpoints`, `watch`, `report`: what the service says, for people and as JSON lines."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from pathwatch.server.cli.following import Update
from pathwatch.server.cli.livetable import LiveTable, show
from pathwatch.v1 import run_pb2, signal_pb2


@pytest.fixture
def ask(command: Callable[..., Result], scripted: Any) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        result = command(*arguments, "--server", scripted.address, COLUMNS="200")
        assert result.exit_code == 0, result.output
        return result

    return run


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def add_window(server: Any, group: str, step: int, phase: str, **metrics: float) -> None:
    server.history.windows.add(
        group=group,
        step=step,
        phase=signal_pb2.Phase.Value(f"PHASE_{phase}"),
        metrics=metrics,
        reason="so it is",
    )
    server.history.closed_step = step


def test_runs(ask: Callable[..., Result], scripted: Any) -> None:
    scripted.run.MergeFrom(
        run_pb2.Run(attempt=2, step=120, closed_step=100, groups=["code", "math"], world_size=8)
    )
    (record,) = records(ask("runs", "--json"))
    assert record["run"] == "pair"
    assert (record["state"], record["attempt"], record["step"], record["closed_step"]) == (
        "ACTIVE",
        2,
        120,
        100,
    )
    assert (record["groups"], record["world_size"]) == (["code", "math"], 8)
    shown = ask("runs").stdout
    assert all(word in shown for word in ("pair", "ACTIVE", "120", "code, math"))


def test_signal(ask: Callable[..., Result], scripted: Any) -> None:
    scripted.say("STOP", math="GENERALIZED", code="MEMORIZED")
    scripted.signal.groups[1].best_checkpoint_step = 75
    scripted.signal.best_checkpoint_step = 50
    (record,) = records(ask("signal", "pair", "--json"))
    assert (record["action"], record["stop_at_step"], record["reason"]) == ("STOP", 101, "because of STOP")
    assert (record["best_checkpoint_step"], record["best_checkpoint_by_group"]) == (50, {"math": 75})
    assert record["groups"]["code"]["phase"] == "MEMORIZED"
    shown = ask("signal", "pair").stdout
    assert "pair, step 100: STOP at step 101" in shown
    assert all(word in shown for word in ("because of STOP", "GENERALIZED", "75", "so it is"))


def test_a_stale_signal_says_so(ask: Callable[..., Result], scripted: Any) -> None:
    scripted.say("CONTINUE", math="MEMORIZED")
    scripted.signal.stale = True
    assert "CONTINUE (stale)" in ask("signal", "pair").stdout


def test_checkpoints(ask: Callable[..., Result], scripted: Any) -> None:
    assert "no registered checkpoint" in ask("checkpoints", "pair").stdout
    for place, step in enumerate((300, 100, 200)):
        scripted.ranking.append(
            run_pb2.RankedCheckpoint(
                checkpoint=run_pb2.Checkpoint(step=step, tag=f"step{step}"),
                score=place / 8,
                reason=f"place {place}",
            )
        )
    first, second = records(ask("checkpoints", "pair", "--json", "--limit", 2))
    assert (first["place"], first["step"], first["tag"], first["score"]) == (1, 300, "step300", 0.0)
    assert (second["place"], second["step"], second["reason"]) == (2, 100, "place 1")
    shown = ask("checkpoints", "pair").stdout
    assert shown.index("step300") < shown.index("step100") < shown.index("step200")


@pytest.mark.slow
def test_watch_follows_until_the_run_is_finished(ask: Callable[..., Result], scripted: Any) -> None:
    add_window(scripted, "math", 0, "LEARNING", train_loss=3.5)
    scripted.say("CONTINUE", math="LEARNING")
    scripted.history.signals.append(scripted.signal)

    def goes_on(server: Any) -> None:
        if server.history.closed_step == 100:
            server.run.state = run_pb2.RUN_STATE_FINISHED
            return
        add_window(server, "math", server.history.closed_step + 50, "MEMORIZED", train_loss=0.25)
        server.say("CHECKPOINT", math="MEMORIZED")
        server.signal.step = server.history.closed_step
        server.history.signals.append(server.signal)

    scripted.then = goes_on
    output = records(ask("watch", "pair", "--json"))
    windows = [(line["step"], line["phase"]) for line in output if line["type"] == "window"]
    assert windows == [(0, "LEARNING"), (50, "MEMORIZED"), (100, "MEMORIZED")]
    assert [line["action"] for line in output if line["type"] == "signal"] == [
        "CONTINUE",
        "CHECKPOINT",
        "CHECKPOINT",
    ]


def test_watch_without_a_terminal_prints_changes_alone(ask: Callable[..., Result], scripted: Any) -> None:
    for step, phase in ((0, "LEARNING"), (50, "MEMORIZED"), (100, "MEMORIZED")):
        add_window(scripted, "math", step, phase)
    scripted.say("STOP", math="MEMORIZED")
    scripted.history.signals.append(scripted.signal)
    scripted.run.state = run_pb2.RUN_STATE_FINISHED
    assert ask("watch", "pair").stdout.splitlines() == [
        "step 0: math is LEARNING: so it is",
        "step 50: math is MEMORIZED: so it is",
        "step 100: told to STOP at step 101: because of STOP",
    ]


def test_the_live_table_shows_each_group(scripted: Any) -> None:
    add_window(scripted, "math", 0, "LEARNING", train_loss=3.5)
    for step, distance in ((50, 0.7), (100, 0.5)):
        add_window(
            scripted, "math", step, "MEMORIZED",
            train_loss=0.125, path_distance_normalized=distance,
            effective_dimension=4.25, memorized_ratio=0.75,
        )  # fmt: skip
    add_window(scripted, "code", 100, "OVERFITTING", train_loss=0.5, unseen_loss=2.5)
    scripted.say("CHECKPOINT", math="MEMORIZED", code="OVERFITTING")
    update = Update(
        run=scripted.run, signal=scripted.signal, windows=scripted.history.windows, signals=[], rewound=False
    )
    live = LiveTable()
    live.take(update)
    shown = rendered(live)
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.startswith(("math", "code"))}
    assert rows["math"] == ["math", "MEMORIZED", "50", "0.125", "–", "0.500", "4.25", "–", "0.75", "–", "█▁"]
    assert rows["code"][:5] == ["code", "OVERFITTING", "100", "0.500", "2.500"]
    assert "CHECKPOINT" in shown
    assert "because of CHECKPOINT" in shown


def test_a_new_attempt_starts_the_table_anew(scripted: Any) -> None:
    live = LiveTable()
    add_window(scripted, "math", 100, "MEMORIZED")
    add_window(scripted, "code", 100, "MEMORIZED")
    first = Update(
        run=scripted.run, signal=scripted.signal, windows=scripted.history.windows, signals=[], rewound=False
    )
    live.take(first)
    again = Update(
        run=run_pb2.Run(name="pair", attempt=1),
        signal=scripted.signal,
        windows=[signal_pb2.Window(group="math", step=50, phase=signal_pb2.PHASE_LEARNING, reason="anew")],
        signals=[],
        rewound=True,
    )
    assert live.take(again) == ["attempt 1 begins", "step 50: math is LEARNING: anew"]
    assert "code" not in rendered(live)


def test_on_a_terminal_the_table_is_live(scripted: Any) -> None:
    add_window(scripted, "math", 0, "LEARNING", train_loss=3.5)
    update = Update(
        run=scripted.run, signal=scripted.signal, windows=scripted.history.windows, signals=[], rewound=False
    )
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    show([update], terminal)
    assert isinstance(terminal.file, io.StringIO)
    assert "LEARNING" in terminal.file.getvalue()
    assert "3.500" in terminal.file.getvalue()


def rendered(live: LiveTable) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(live)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_report_draws_a_run_of_a_server(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    run = ("drawn", "--server", server.grpc_address)
    assert command("replay", trace_file(steps=4), "--run", *run).exit_code == 0
    result = command("report", *run, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    page, picture = map(Path, result.stdout.split())
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "steps 0 to 75" in text
    assert "2 data groups" in text
    assert "finished" in text


def test_report_of_a_run_without_windows(
    command: Callable[..., Result], scripted: Any, tmp_path: Path
) -> None:
    result = command("report", "pair", "--server", scripted.address, "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == "pathwatch: run 'pair' has no judged window yet\n"
