"""Changes of phase are counted like everything that is counted: from the start of the server, never less."""

from __future__ import annotations

from pathwatch.server.engine.standing import Standing
from pathwatch.server.phases.verdict import Phase
from pathwatch.server.store.rows import WindowRow


def window(step: int, phase: Phase, group: str = "math") -> WindowRow:
    return WindowRow(
        run="run",
        attempt=0,
        first_step=step,
        step=step,
        group=group,
        partial=False,
        judged=True,
        phase=phase,
        reason="",
        metrics={},
        layer_path_distance=(),
        evidence=b"evidence",
        losses=b"losses",
    )


def test_a_change_is_one_from_window_to_window_of_a_group() -> None:
    standing = Standing("run", 0.0)
    standing.take_windows([window(1, Phase.LEARNING), window(1, Phase.MEMORIZED, "code")])
    assert standing.phase_changes == {}, "the first window of a group is no change"
    standing.take_windows([window(2, Phase.MEMORIZED), window(2, Phase.MEMORIZED, "code")])
    standing.take_windows([window(3, Phase.LEARNING)])
    assert standing.phase_changes == {"math": 2}


def test_what_a_rewind_supersedes_still_happened() -> None:
    standing = Standing("run", 0.0)
    for step, phase in enumerate([Phase.LEARNING, Phase.MEMORIZED, Phase.GENERALIZED], start=1):
        standing.take_windows([window(step, phase)])
    standing.restore(standing.signal, [window(1, Phase.LEARNING)])
    assert standing.phase_changes == {"math": 2}
    standing.take_windows([window(2, Phase.MEMORIZED)])
    assert standing.phase_changes == {"math": 3}


def test_after_a_restart_it_counts_from_the_newest_window_on() -> None:
    standing = Standing("run", 0.0)
    standing.restore(standing.signal, [window(7, Phase.LEARNING)])
    assert standing.phase_changes == {}
    standing.take_windows([window(8, Phase.MEMORIZED)])
    assert standing.phase_changes == {"math": 1}
