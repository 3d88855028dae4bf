"""A plug-in that fails costs its own values, never the server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pathwatch.server.phases.verdict import Phase
from pathwatch.v1 import run_pb2, signal_pb2

CODE = """
import threading
import numpy as np
from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase

class Detector:
    def measure(self, window):
        return {"loss": np.float64(np.nanmean(window.losses_N))}
    def update(self, step, round_):
        return {g: GroupVerdict(phase=Phase.LEARNING, since_step=0, reason="fine") for g in round_}
    def rank(self, checkpoints, group):
        return []

class FailsToMeasure(Detector):
    def measure(self, window):
        if window.step == 2:
            raise ZeroDivisionError("no luck")
        return super().measure(window)

class FailsToUpdate(Detector):
    def update(self, step, round_):
        if step == 2:
            raise ZeroDivisionError("no luck")
        return super().update(step, round_)

class FailsToRank(Detector):
    def rank(self, checkpoints, group):
        raise ZeroDivisionError("no luck")

class RemembersObjects(Detector):
    def measure(self, window):
        return {"things": np.array([object()])}

class Slow(Detector):
    go_on = threading.Event()
    def measure(self, window):
        assert self.go_on.wait(60)
        return super().measure(window)

class FailsToDecide:
    def decide(self, step, verdicts):
        raise ZeroDivisionError("no luck")

class StopsAtOnce:
    def decide(self, step, verdicts):
        return Decision(action=Action.STOP, reason="enough")

def good(window, others, geometry):
    return {"groups_beside": float(len(others)), "not_a_number": float("nan")}

def bad(window, others, geometry):
    raise ZeroDivisionError("no luck")
"""
ENTRY_POINTS = """
[pathwatch.detectors]
fails-to-measure = faulty_plugins:FailsToMeasure
fails-to-update = faulty_plugins:FailsToUpdate
fails-to-rank = faulty_plugins:FailsToRank
remembers-objects = faulty_plugins:RemembersObjects
slow = faulty_plugins:Slow

[pathwatch.policies]
fails-to-decide = faulty_plugins:FailsToDecide
stops-at-once = faulty_plugins:StopsAtOnce

[pathwatch.metrics]
good = faulty_plugins:good
bad = faulty_plugins:bad
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as pip leaves it behind."""
    (tmp_path / "faulty_plugins.py").write_text(CODE)
    info = tmp_path / "faulty_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty_plugins", raising=False)
    return info


def play(bench: Any, make_batch: Any, eventually: Any, steps: Any = (1, 2)) -> Any:
    rank = bench.join(session=f"life from step {steps[0]}")
    for step in steps:
        rank.observe(make_batch(step))
        rank.observe(make_batch(step, "code"))
        rank.watermark(step)
    eventually(lambda: bench.view().run.closed_step == steps[-1])
    return rank


@pytest.mark.parametrize("detector", ["fails-to-measure", "fails-to-update"])
def test_a_detector_that_fails_makes_the_run_unknown_until_it_works_again(
    bench: Any, make_batch: Any, eventually: Any, detector: str
) -> None:
    bench.create(detector=detector)
    rank = play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.action == signal_pb2.ACTION_CONTINUE
    for status in signal.groups:
        assert status.phase == Phase.UNKNOWN
        assert "detector plug-in failed: ZeroDivisionError('no luck')" in status.reason
    assert "path_distance" in bench.view().windows["math"].metrics
    rank.observe(make_batch(3))
    rank.watermark(3)
    eventually(lambda: bench.view().run.closed_step == 3)
    assert bench.view().windows["math"].phase == Phase.LEARNING
    before = [(w.step, w.group, w.phase, w.reason) for w in bench.store.windows("run")]
    bench.restart()
    play(bench, make_batch, eventually, steps=(4,))
    after = [(w.step, w.group, w.phase, w.reason) for w in bench.store.windows("run")]
    assert after[:-2] == before
    assert after[-1][2] == Phase.LEARNING


def test_evidence_must_be_numbers(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(detector="remembers-objects")
    play(bench, make_batch, eventually)
    assert "'things' holds Python objects" in bench.view().last_signal.groups[0].reason


def test_a_policy_that_fails_lets_the_run_go_on(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(policy="fails-to-decide")
    play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.action == signal_pb2.ACTION_CONTINUE
    assert "policy plug-in failed" in signal.reason


def test_a_detector_that_cannot_rank_chooses_no_checkpoint(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    from pathwatch.server.engine.refusal import RefusedError
    from pathwatch.server.phases.verdict import Checkpoint

    bench.create(detector="fails-to-rank")
    bench.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0)).result(30)
    play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.groups[0].phase == Phase.LEARNING
    assert not signal.HasField("best_checkpoint_step")
    with pytest.raises(RefusedError, match="no luck"):
        bench.engine.rank_checkpoints("run", None, 0).result(30)


def test_a_metric_that_fails_costs_its_own_values(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(metrics=["bad", "good"])
    play(bench, make_batch, eventually)
    metrics = bench.view().windows["math"].metrics
    assert metrics["groups_beside"] == 1
    assert "not_a_number" not in metrics
    assert "path_distance" in metrics


def test_a_run_whose_detector_is_gone_waits_for_it(
    bench: Any, make_batch: Any, eventually: Any, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.create(detector="fails-to-update")
    play(bench, make_batch, eventually, steps=(1,))
    (installed / "entry_points.txt").rename(installed / "hidden")
    bench.restart()
    rank = bench.join(session="second")
    rank.observe(make_batch(3))
    last = rank.watermark(3)
    eventually(lambda: rank.acked == last)
    eventually(lambda: "cannot be judged" in caplog.text)
    assert bench.view().run.closed_step == 1
    (installed / "hidden").rename(installed / "entry_points.txt")
    bench.restart()
    eventually(lambda: bench.view().run.closed_step == 3)


def test_stop_stands_while_data_goes_stale(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(policy="stops-at-once", stop_margin_steps=10, grace_seconds=30)
    play(bench, make_batch, eventually, steps=(1,))
    play(bench, make_batch, eventually, steps=(2,))
    signal = bench.view().signal(bench.engine.now())
    assert (signal.action, signal.stop_at_step) == (signal_pb2.ACTION_STOP, 11)
    bench.restart()
    assert bench.view().last_signal == signal
    bench.pass_time(60)
    stale = bench.view().signal(bench.engine.now())
    assert (stale.action, stale.stop_at_step, stale.stale) == (signal_pb2.ACTION_STOP, 11, True)
    assert bench.view().run.state == run_pb2.RUN_STATE_ACTIVE


def test_acks_are_held_back_while_too_many_rounds_wait(bench: Any, make_batch: Any, eventually: Any) -> None:
    """Slow verdicts slow the senders of the run, so that memory stays bounded; other runs go on."""
    from pathwatch.server.engine.live_run import MAX_UNJUDGED_ROUNDS

    bench.create(detector="slow")
    bench.create("other")
    slow, other = bench.join(), bench.join(run="other")
    for step in range(MAX_UNJUDGED_ROUNDS):
        slow.observe(make_batch(step))
        slow.watermark(step)
    eventually(lambda: slow.acked == slow.sequence)
    for step in range(MAX_UNJUDGED_ROUNDS, MAX_UNJUDGED_ROUNDS + 8):
        slow.observe(make_batch(step))
        slow.watermark(step)
    other.observe(make_batch(1))
    last_of_other = other.watermark(1)
    eventually(lambda: bench.view("other").run.closed_step == 1)
    assert other.acked == last_of_other
    assert slow.acked < slow.sequence
    sys.modules["faulty_plugins"].Slow.go_on.set()
    eventually(lambda: bench.view().run.closed_step == MAX_UNJUDGED_ROUNDS + 7)
    assert slow.acked == slow.sequence
