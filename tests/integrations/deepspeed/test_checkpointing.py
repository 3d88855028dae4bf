"""The watch in DeepSpeed's checkpoints: registered as they are saved, taken up again when loaded."""

from __future__ import annotations

import json
import signal as signals
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pathwatch.client import Client
from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4), labels=TOKENS)},
    interval=2,
    shift_labels=False,
    visits=True,
)


def train(engine: Any, watch: Any, count: int) -> None:
    for _ in range(count):
        watch.visited("a", [0, 0, 3])
        engine.backward(engine(TOKENS).square().mean())
        engine.step()


def visits_at(stream: Any, step: int) -> list[int]:
    (event,) = [event for event in stream.of("observe") if event["step"] == step]
    visits = dict(zip(event["sample_ids"].tolist(), event["visits"].tolist(), strict=True))
    return [visits[sample_id] for sample_id in sorted(visits)]


def test_saving_makes_the_checkpoint_known_once(make_engine: Callable, streams: list, tmp_path: Path) -> None:
    engine = make_engine()
    mine = {"epoch": 3}
    with attach(engine, run="r", probe=PROBE) as watch:
        engine.save_checkpoint(str(tmp_path), tag="before")
        assert not streams
        train(engine, watch, 1)
        engine.save_checkpoint(tmp_path, "mine", mine)
        watch.checkpoint_saved("mine")
        watch.checkpoint_saved()
        train(engine, watch, 1)
        engine.save_checkpoint(tmp_path)
    assert streams[0].of("checkpoint") == [
        {"step": 0, "tag": "before"},
        {"step": 1, "tag": "mine"},
        {"step": 2, "tag": "global_step2"},
    ]
    assert mine == {"epoch": 3}
    _, client_state = engine.load_checkpoint(tmp_path, tag="mine")
    assert client_state["epoch"] == 3


def test_the_state_holds_nothing_that_needs_pickle(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    with attach(make_engine(), run="r", probe=PROBE) as watch:
        watch.checkpoint_saved("first", tmp_path)
        torch.save(watch.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["run"] == "r"
    assert [entry["tag"] for entry in state["checkpoints"]] == ["first"]


@pytest.mark.parametrize("order", ["attach first", "load first"])
def test_a_resumed_job_is_the_next_attempt_and_counts_on(
    make_engine: Callable, streams: list, tmp_path: Path, order: str
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, watch, 4)
        engine.save_checkpoint(tmp_path)
        train(engine, watch, 2)
    resumed = make_engine()
    if order == "attach first":
        watch = attach(resumed, run="r", probe=PROBE)
        resumed.load_checkpoint(tmp_path)
    else:
        _, client_state = resumed.load_checkpoint(tmp_path)
        watch = attach(resumed, run="r", probe=PROBE, client_state=client_state)
    with watch:
        train(resumed, watch, 2)
        state = watch.state_dict()
    assert [stream.settings["attempt"] for stream in streams] == [0, 1]
    assert [event["step"] for event in streams[1].of("watermark")] == [4, 6]
    assert visits_at(streams[1], 4) == [8, 0, 0, 4]
    assert visits_at(streams[1], 6) == [12, 0, 0, 6]
    assert (state["attempt"], [entry["step"] for entry in state["checkpoints"]]) == (1, [4])


def test_a_job_that_goes_back_has_the_visits_of_its_checkpoint(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, watch, 2)
        engine.save_checkpoint(tmp_path)
        train(engine, watch, 3)
        engine.save_checkpoint(tmp_path, save_latest=False)
        engine.load_checkpoint(tmp_path)
        train(engine, watch, 2)
        state = watch.state_dict()
    assert [stream.settings["attempt"] for stream in streams] == [0, 1]
    assert visits_at(streams[1], 4) == [8, 0, 0, 4]
    assert [entry["step"] for entry in state["checkpoints"]] == [2]


def test_a_job_that_goes_back_without_our_state_forgets_what_it_saved_later(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine()
    engine.backward(engine(TOKENS).square().mean())
    engine.step()
    engine.save_checkpoint(tmp_path, tag="unwatched")
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, watch, 2)
        engine.save_checkpoint(tmp_path, tag="later")
        engine.load_checkpoint(tmp_path, tag="unwatched")
        train(engine, watch, 1)
        state = watch.state_dict()
    assert (state["attempt"], state["checkpoints"]) == (1, [])
    assert visits_at(streams[1], 2) == [-1] * 4


def test_a_checkpoint_without_our_state_leaves_visits_unknown(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine()
    for _ in range(2):
        engine.backward(engine(TOKENS).square().mean())
        engine.step()
    engine.save_checkpoint(tmp_path)
    resumed = make_engine()
    with attach(resumed, run="r", probe=PROBE) as watch:
        resumed.load_checkpoint(tmp_path)
        train(resumed, watch, 2)
    assert streams[0].settings["attempt"] == 0
    assert visits_at(streams[0], 4) == [-1] * 4


def test_weights_alone_begin_a_new_training(make_engine: Callable, streams: list, tmp_path: Path) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, watch, 2)
        engine.save_checkpoint(tmp_path)
    tuned = make_engine()
    with attach(tuned, run="tuned", probe=PROBE) as watch:
        tuned.load_checkpoint(tmp_path, load_module_only=True)
        train(tuned, watch, 2)
    assert streams[1].settings["attempt"] == 0
    assert visits_at(streams[1], 0) == [0] * 4


def test_another_run_s_checkpoint_gives_its_visits_but_no_attempt(
    make_engine: Callable, streams: list, tmp_path: Path
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE) as watch:
        train(engine, watch, 2)
        engine.save_checkpoint(tmp_path)
    branch = make_engine()
    with attach(branch, run="branch", probe=PROBE) as watch:
        branch.load_checkpoint(tmp_path)
        train(branch, watch, 2)
        state = watch.state_dict()
    assert streams[1].settings["attempt"] == 0
    assert visits_at(streams[1], 2) == [4, 0, 0, 2]
    assert state["checkpoints"] == []


def test_closing_gives_the_engine_its_own_methods_back(make_engine: Callable, streams: list) -> None:
    engine = make_engine()
    names = ("forward", "step", "save_checkpoint", "load_checkpoint")
    before = [getattr(engine, name) for name in names]
    attach(engine, run="r", probe=PROBE).close()
    assert [getattr(engine, name) for name in names] == before


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < deadline, "condition did not come true within 120 s"
        time.sleep(0.02)
    return value


def test_the_best_checkpoints_are_linked_beside_the_others(
    make_engine: Callable, patient: None, tmp_path: Path
) -> None:
    """A real sidecar, to which the newest is the best while nothing has generalized."""
    out = tmp_path / "checkpoints"
    with BackgroundServer(ServerConfig(data=tmp_path / "data")) as server:
        engine = make_engine()
        with attach(engine, run="r", probe=PROBE, server=server.grpc_address) as watch:
            for _ in range(2):
                train(engine, watch, 2)
                engine.save_checkpoint(out)
            with Client(server.grpc_address) as client:
                wait_for(lambda: any(run.closed_step == 4 for run in client.list_runs()))
                wait_for(lambda: watch.best_checkpoint() == "global_step4")
            assert watch.best_checkpoint("a") == "global_step4"
            assert watch.best_checkpoint("unknown") is None
            # It names the groups that links are made for, and comes by a connection of its own.
            wait_for(lambda: watch.signal is not None and watch.signal.groups)
            watch.close(60)
    assert (out / "best").readlink() == Path("global_step4")
    assert (out / "best-a").readlink() == Path("global_step4")
    # DeepSpeed takes the link for a tag.
    path, _ = make_engine().load_checkpoint(out, tag="best")
    assert path is not None


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path: Path, start_ranks: Callable) -> None:
    """A real sidecar and two real ranks: trained to step 7, killed, resumed from step 4."""
    script = Path(__file__).with_name("lifecycle.py")
    with (
        BackgroundServer(ServerConfig(data=tmp_path / "data")) as server,
        Client(server.grpc_address) as client,
    ):

        def windows() -> Sequence[signal_pb2.Window]:
            return client.get_metrics("life").windows

        def steps() -> list[tuple[int, int]]:
            return [(window.step, window.attempt) for window in windows()]

        ranks = start_ranks(script, lambda rank: [str(tmp_path), server.grpc_address, "killed"])
        try:
            wait_for(lambda: any(run.name == "life" for run in client.list_runs()))
            wait_for(lambda: client.get_run("life").closed_step == 6)
            assert steps() == [(0, 0), (2, 0), (4, 0), (6, 0)]
            first = {window.step: dict(window.metrics) for window in windows()}
        finally:
            for rank in ranks:
                rank.send_signal(signals.SIGKILL)
                rank.communicate()
        ranks = start_ranks(script, lambda rank: [str(tmp_path), server.grpc_address, "done"])
        logs = [rank.communicate(timeout=240)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], logs
        wait_for(lambda: client.get_run("life").closed_step == 10)
        assert client.get_run("life").attempt == 1
        # Steps 4 and 6 of the attempt that was killed are superseded.
        assert steps() == [(0, 0), (2, 0), (4, 1), (6, 1), (8, 1), (10, 1)]
        second = {window.step: dict(window.metrics) for window in windows()}
        # The same state, read again: the same numbers.
        for name in ("train_loss", "path_distance", "routing_entropy", "effective_dimension"):
            assert second[4][name] == pytest.approx(first[4][name], rel=1e-6)
        kept = {(c.checkpoint.step, c.checkpoint.tag) for c in client.rank_checkpoints("life")}
        assert kept == {(4, "global_step4"), (8, "global_step8")}
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [told[rank]["best"] for rank in range(2)] == ["global_step8"] * 2
    # Rank 0 trains on sample 0 at every step, rank 1 on samples 0 and 1: ten steps over both lives.
    assert told[0]["visits"] == told[1]["visits"] == [20, 10, 0, 0]
    # Rank 1 closed first: rank 0 noticed, said so once, and went on; else it would wait for it half an hour.
    assert [log.count("cannot agree any more") for log in logs] == [1, 0]
    assert not any("observes no more" in log for log in logs)


def test_the_next_attempt_comes_after_the_newest_that_the_sidecar_knows(
    make_engine: Callable, patient: None, tmp_path: Path
) -> None:
    """A job that dies before it saves, three times: nothing but the sidecar remembers."""
    with BackgroundServer(ServerConfig(data=tmp_path)) as server, Client(server.grpc_address) as client:
        for attempt in range(3):
            engine = make_engine()
            with attach(engine, run="r", probe=PROBE, server=server.grpc_address) as watch:
                train(engine, watch, 2)
                watch.close(60)
            wait_for(lambda: client.get_run("r").closed_step == 2)
            assert client.get_run("r").attempt == attempt
