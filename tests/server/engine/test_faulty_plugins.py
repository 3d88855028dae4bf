"""A plug-in that fails costs its own values, never the server."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from server_process import ServerProcess

from pathwatch.client import Client, RoutingStream
from pathwatch.server.config import Limits
from pathwatch.server.engine.hosting import process
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.phases.verdict import Checkpoint, Phase
from pathwatch.v1 import run_pb2, signal_pb2

CODE = """
import os
import re
import time
from pathlib import Path
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

FOLDER = Path(__file__).parent

class Slow(Detector):
    def measure(self, window):
        while not (FOLDER / "go_on").exists():
            time.sleep(0.01)
        return super().measure(window)

def hang():
    (FOLDER / "hangs").touch()
    # Backtracks for ages inside C, and never lets go of the interpreter.
    re.match("(a+)+$", "a" * 64 + "b")

class HangsToMeasure(Detector):
    def measure(self, window):
        if window.step == 2:
            hang()
        return super().measure(window)

class HangsToUpdate(Detector):
    def update(self, step, round_):
        if step == 2:
            hang()
        return super().update(step, round_)

class AlwaysHangs(Detector):
    def update(self, step, round_):
        hang()

class Waits(Detector):
    def update(self, step, round_):
        (FOLDER / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)

class WaitsInC(Detector):
    def update(self, step, round_):
        (FOLDER / "pid").write_text(str(os.getpid()))
        hang()

class HangsToRank(Detector):
    def rank(self, checkpoints, group):
        hang()

class ForksAndHangs(Detector):
    def update(self, step, round_):
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
            os._exit(0)
        hang()

class CrashesInRank(Detector):
    def rank(self, checkpoints, group):
        os._exit(3)

class SaysOddThings(Detector):
    def update(self, step, round_):
        reason = chr(0xD800) + chr(27) + "so much " * 1000
        return {g: GroupVerdict(phase=Phase.LEARNING, since_step=0, reason=reason) for g in round_}

class KnowsImpossibleSteps(Detector):
    def update(self, step, round_):
        return {g: GroupVerdict(phase=Phase.LEARNING, since_step=2**70, reason="") for g in round_}

class Crashes(Detector):
    def update(self, step, round_):
        if step == 2:
            os.abort()
        return super().update(step, round_)

class Leaves(Detector):
    def update(self, step, round_):
        if step == 2:
            os._exit(3)
        return super().update(step, round_)

class HangsWhenMade(Detector):
    def __init__(self):
        hang()

class HangsToDecide:
    def decide(self, step, verdicts):
        if step == 2:
            hang()
        return Decision(action=Action.CONTINUE, reason="go on")

class FailsToDecide:
    def decide(self, step, verdicts):
        raise ZeroDivisionError("no luck")

class StopsAtOnce:
    def decide(self, step, verdicts):
        return Decision(action=Action.STOP, reason="enough")

def good(window, others, geometry):
    return {"groups_beside": float(len(others)), "not_a_number": float("nan")}

def hangs(window, others, geometry):
    if window.step == 1 and window.group == "code":
        hang()
    return {"answered": 1.0}

def bad(window, others, geometry):
    raise ZeroDivisionError("no luck")
"""
ENTRY_POINTS = """
[pathwatch.detectors]
fails-to-measure = faulty_plugins:FailsToMeasure
fails-to-update = faulty_plugins:FailsToUpdate
fails-to-rank = faulty_plugins:FailsToRank
remembers-objects = faulty_plugins:RemembersObjects
works = faulty_plugins:Detector
slow = faulty_plugins:Slow
hangs-to-measure = faulty_plugins:HangsToMeasure
hangs-to-update = faulty_plugins:HangsToUpdate
always-hangs = faulty_plugins:AlwaysHangs
waits = faulty_plugins:Waits
hangs-to-rank = faulty_plugins:HangsToRank
waits-in-c = faulty_plugins:WaitsInC
crashes = faulty_plugins:Crashes
forks-and-hangs = faulty_plugins:ForksAndHangs
crashes-in-rank = faulty_plugins:CrashesInRank
says-odd-things = faulty_plugins:SaysOddThings
knows-impossible-steps = faulty_plugins:KnowsImpossibleSteps
leaves = faulty_plugins:Leaves
hangs-when-made = faulty_plugins:HangsWhenMade

[pathwatch.policies]
fails-to-decide = faulty_plugins:FailsToDecide
stops-at-once = faulty_plugins:StopsAtOnce
hangs-to-decide = faulty_plugins:HangsToDecide

[pathwatch.metrics]
good = faulty_plugins:good
bad = faulty_plugins:bad
hangs = faulty_plugins:hangs
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_policy_that_fails_lets_the_run_go_on(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(policy="fails-to-decide")
    play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.action == signal_pb2.ACTION_CONTINUE
    assert "policy plug-in failed" in signal.reason


@pytest.mark.slow
def test_a_detector_that_cannot_rank_chooses_no_checkpoint(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(detector="fails-to-rank")
    bench.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0)).result(30)
    play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.groups[0].phase == Phase.LEARNING
    assert not signal.HasField("best_checkpoint_step")
    with pytest.raises(RefusedError, match="no luck"):
        bench.engine.rank_checkpoints("run", None, 0).result(30)


@pytest.mark.slow
def test_a_metric_that_fails_costs_its_own_values(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(metrics=["bad", "good"])
    play(bench, make_batch, eventually)
    metrics = bench.view().windows["math"].metrics
    assert metrics["groups_beside"] == 1
    assert "not_a_number" not in metrics
    assert "path_distance" in metrics


@pytest.mark.slow
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


@pytest.mark.slow
def test_acks_are_held_back_while_too_many_rounds_wait(
    bench: Any, make_batch: Any, eventually: Any, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow verdicts slow the senders of the run, so that memory stays bounded; other runs go on."""
    most = Limits().unjudged_rounds
    cut_off_when(installed.parent / "never", monkeypatch)

    bench.create(detector="slow")
    bench.create("other")
    slow, other = bench.join(), bench.join(run="other")
    for step in range(most):
        slow.observe(make_batch(step))
        slow.watermark(step)
    eventually(lambda: slow.acked == slow.sequence)
    for step in range(most, most + 8):
        slow.observe(make_batch(step))
        slow.watermark(step)
    other.observe(make_batch(1))
    last_of_other = other.watermark(1)
    eventually(lambda: bench.view("other").run.closed_step == 1)
    assert other.acked == last_of_other
    assert slow.acked < slow.sequence
    (installed.parent / "go_on").touch()
    eventually(lambda: bench.view().run.closed_step == most + 7)
    assert slow.acked == slow.sequence


# Plug-ins that never answer.


def cut_off_when(flag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for an answer is over when the file is there, which is taken away: not by any clock, so that
    what answers late on a busy machine is not cut off."""

    class Timer(threading.Timer):
        def run(self) -> None:
            while not self.finished.wait(0.005):
                if flag.exists() and not self.finished.is_set():
                    flag.unlink()
                    self.function(*self.args, **self.kwargs)
                    return

    monkeypatch.setattr(process.threading, "Timer", Timer)


@pytest.fixture
def impatient(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs is cut off at once."""
    cut_off_when(installed.parent / "hangs", monkeypatch)


@pytest.mark.slow
def test_what_gives_no_answer_in_its_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = process.PluginProcess("pathwatch.detectors", "always-hangs", {})
    monkeypatch.setattr(process, "CALL_SECONDS", 0.5)
    with pytest.raises(process.CutOffError, match=r"gave no answer to `update` within 0\.5 s"):
        plugin.call("update", step=1, round_={})
    assert plugin.ended


@pytest.mark.slow
def test_one_that_is_closed_in_the_midst_of_a_call_has_not_crashed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a server ends while a plug-in works: that is no error of anybody's."""
    plugin = process.PluginProcess("pathwatch.detectors", "always-hangs", {})
    calling = threading.Event()
    to_frame = process.to_frame

    def say(content: Any) -> bytes:
        calling.set()
        return to_frame(content)

    monkeypatch.setattr(process, "to_frame", say)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(plugin.call, "update", step=1, round_={})
        assert calling.wait(60)
        plugin.close()
        with pytest.raises(process.CutOffError, match="was closed"):
            call.result(60)
    assert not caplog.records


@pytest.mark.robustness
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        ({"detector": "hangs-to-measure"}, "'hangs-to-measure' gave no answer to `measure` within 30 s"),
        ({"detector": "hangs-to-update"}, "'hangs-to-update' gave no answer to `update` within 30 s"),
        (
            {"detector": "works", "policy": "hangs-to-decide"},
            "'hangs-to-decide' gave no answer to `decide` within 30 s",
        ),
        ({"detector": "crashes"}, "'crashes' crashed in `update` (SIGABRT)"),
        ({"detector": "leaves"}, "'leaves' ended its process in `update` (exit code 3)"),
    ],
)
def test_a_plugin_that_gives_no_answer_is_cut_off_named_and_started_again(
    bench: Any, make_batch: Any, eventually: Any, plugins: dict[str, str], words: str
) -> None:
    bench.create(**plugins)
    play(bench, make_batch, eventually)
    signal = bench.view().last_signal
    assert signal.action == signal_pb2.ACTION_CONTINUE
    for status in signal.groups:
        assert status.phase == Phase.UNKNOWN
        assert words in status.reason
    assert "path_distance" in bench.view().windows["math"].metrics
    play(bench, make_batch, eventually, steps=(3,))
    assert bench.view().windows["math"].phase != Phase.UNKNOWN
    before = [(w.step, w.group, w.phase, w.reason) for w in bench.store.windows("run")]
    bench.restart()
    play(bench, make_batch, eventually, steps=(4,))
    after = [(w.step, w.group, w.phase, w.reason) for w in bench.store.windows("run")]
    assert after[:-2] == before
    assert after[-1][2] != Phase.UNKNOWN


@pytest.mark.robustness
@pytest.mark.usefixtures("impatient")
def test_one_that_always_hangs_is_given_up_and_other_runs_go_on(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(detector="always-hangs")
    bench.create("other")
    hanging, other = bench.join(), bench.join(run="other")
    for step in range(1, 6):
        for rank in (hanging, other):
            rank.observe(make_batch(step))
            rank.watermark(step)
    eventually(lambda: bench.view("other").run.closed_step == 5)
    eventually(lambda: "cannot be judged" in bench.view().last_signal.reason)
    signal = bench.view().last_signal
    assert signal.action == signal_pb2.ACTION_CONTINUE
    assert "'always-hangs' gave no answer" in signal.reason
    assert [status.phase for status in signal.groups] == [Phase.UNKNOWN]
    hanging.observe(make_batch(9))
    last = hanging.watermark(9)
    eventually(lambda: hanging.acked == last)
    # What waits is not thrown away: it is judged after a restart, and the run can be finished then.
    with pytest.raises(RefusedError, match="'always-hangs' gave no answer"):
        bench.engine.finish_run("run").result(30)
    assert bench.view().run.state == run_pb2.RUN_STATE_ACTIVE
    assert len(list(bench.store.batches("run"))) > 0


@pytest.mark.robustness
@pytest.mark.usefixtures("impatient")
def test_a_metric_that_hangs_costs_its_own_values_and_is_started_again(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(detector="works", metrics=["hangs", "good"])
    play(bench, make_batch, eventually)
    windows = {(w.step, w.group): w.metrics for w in bench.store.windows("run")}
    assert "answered" not in windows[1, "code"]
    assert windows[1, "code"]["groups_beside"] == 1
    assert windows[2, "code"]["answered"] == 1
    assert bench.view().windows["math"].phase != Phase.UNKNOWN


@pytest.mark.slow
def test_one_that_hangs_when_it_is_made_is_refused_and_holds_nobody_up(
    bench: Any, make_batch: Any, eventually: Any, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = installed.parent / "over"
    cut_off_when(over, monkeypatch)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), detector="hangs-when-made")
    refused = bench.engine.create_run("run", config, 0)
    bench.create("other")
    play_other = bench.join(run="other")
    play_other.observe(make_batch(1))
    play_other.watermark(1)
    eventually(lambda: bench.view("other").run.closed_step == 1)
    assert not refused.done()
    over.touch()
    with pytest.raises(RefusedError, match=r"'hangs-when-made' gave no answer to `load`"):
        refused.result(30)


@pytest.mark.robustness
@pytest.mark.usefixtures("impatient")
def test_a_checkpoint_ranking_that_hangs_keeps_what_was_best(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(detector="hangs-to-rank")
    play(bench, make_batch, eventually, steps=(1,))
    bench.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0)).result(30)
    play(bench, make_batch, eventually, steps=(2,))
    status = bench.view().last_signal.groups[0]
    assert status.phase == Phase.LEARNING
    assert bench.view().last_signal.action == signal_pb2.ACTION_CONTINUE


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["waits", "waits-in-c"])
def test_a_hanging_plugin_ends_with_a_server_that_is_killed(
    tmp_path: Path, installed: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch, detector: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed.parent))
    server = ServerProcess(tmp_path / "data")
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), detector=detector)
    with Client(server.address) as client:
        client.create_run("run", config)
    stream = RoutingStream(server.address, run="run")
    weights_NLK = np.full((3, 2, 4), 0.25, np.float32)
    stream.observe(step=1, group="math", sample_ids=np.arange(3), weights=weights_NLK, losses=np.ones(3))
    stream.watermark(1)
    told = installed.parent / "pid"
    try:
        pid = int(eventually(lambda: told.exists() and told.read_text()))
        assert detector == "waits" or eventually((installed.parent / "hangs").exists)
        assert psutil.pid_exists(pid)
    finally:
        server.kill()
        stream.close(0.1)
    try:
        eventually(lambda: has_ended(pid))
    finally:  # it would keep a core busy for ever
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or only waits to be asked how it ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.robustness
@pytest.mark.usefixtures("impatient")
def test_what_a_plugin_has_started_does_not_keep_it_alive(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    """Its own processes hold the other end of the connection; they do not count."""
    bench.create(detector="forks-and-hangs")
    play(bench, make_batch, eventually, steps=(1,))
    assert "'forks-and-hangs' gave no answer to `update` within 30 s" in bench.view().last_signal.reason


@pytest.mark.slow
def test_a_ranking_that_nobody_survives_costs_no_round_and_is_named(
    bench: Any, make_batch: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bench.create(detector="crashes-in-rank")
    play(bench, make_batch, eventually, steps=(1,))
    with pytest.raises(RefusedError, match="'crashes-in-rank' ended its process in `rank`"):
        bench.engine.rank_checkpoints("run", None, 0).result(30)
    play(bench, make_batch, eventually, steps=(2,))
    assert [window.judged for window in bench.store.windows("run")] == [True] * 4
    assert bench.view().windows["math"].phase == Phase.LEARNING
    bench.engine.register_checkpoint("run", Checkpoint(step=1, tag="", attempt=0)).result(30)
    rank = bench.join(session="more")
    for step in (3, 4, 5):
        rank.observe(make_batch(step))
        rank.watermark(step)
    eventually(lambda: "cannot be judged" in caplog.text)
    assert "cannot be judged: The plug-in 'crashes-in-rank' ended its process in `rank`" in caplog.text


@pytest.mark.slow
def test_words_of_a_plugin_are_made_fit_for_the_store(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create(detector="says-odd-things")
    bench.create("other")
    play(bench, make_batch, eventually, steps=(1,))
    reason = bench.view().windows["math"].reason
    assert reason.isprintable()
    assert len(reason) < 2100
    bench.engine.register_checkpoint("other", Checkpoint(step=1, tag="", attempt=0)).result(30)


@pytest.mark.slow
def test_a_verdict_of_an_impossible_step_is_a_failure_of_the_plugin(
    bench: Any, make_batch: Any, eventually: Any
) -> None:
    bench.create(detector="knows-impossible-steps")
    play(bench, make_batch, eventually, steps=(1,))
    (status, _) = bench.view().last_signal.groups
    assert status.phase == Phase.UNKNOWN
    assert "is no step" in status.reason


def test_where_no_process_can_be_started_the_caller_hears_of_it(
    bench: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    def open_files() -> set[str]:
        """By what they are: others' may be closed meanwhile."""
        found = set()
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/self/fd/{number}"))
        return found

    def full(*arguments: Any, **options: Any) -> Any:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(process.subprocess, "Popen", full)
    files = open_files()
    with pytest.raises(RefusedError, match="no process can be started for the plug-in 'works'") as refused:
        bench.create(detector="works")
    assert refused.value.code == Code.INVALID_ARGUMENT
    eventually(lambda: not {file for file in open_files() if "/fd" not in file} - files)


@pytest.mark.slow
def test_many_ranks_that_create_one_run_load_its_plugins_once(
    bench: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """However long it takes until the run is stored."""
    started = []
    real = process.subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(process.subprocess, "Popen", counted)
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), detector="works")
    bench.store.full = True
    answers = [bench.engine.create_run("run", config, 0) for _ in range(16)]
    eventually(lambda: "pathwatch-plugin-check" not in {thread.name for thread in threading.enumerate()})
    bench.store.full = False
    assert [answer.result(60)[1] for answer in answers].count(True) == 1
    assert len(started) == 1


def test_packages_are_looked_through_once(
    bench: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathwatch.server import plugins

    eventually(bench.at_rest)  # the engine looks, too, when it warms up
    plugins.look_again()
    looked = []
    real = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda **group: looked.append(group) or real(**group))
    with pytest.raises(RefusedError, match="unknown-0"):
        bench.create(metrics=[f"unknown-{i}" for i in range(32)])
    assert len(looked) <= 3
