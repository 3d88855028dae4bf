"""Outages longer than memory and than a process: what the spool keeps is as if nothing had happened."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chaos_proxy import ChaosProxy
from job import differences
from serving import Serving, said, serving, wait
from small_disk import small_disk

from pathwatch.client import Client

Undisturbed = Callable[[int], Mapping[str, bytes]]
LIFE = [sys.executable, str(Path(__file__).parents[1] / "support" / "spooling_life.py")]
STEPS = 40
LIVES = 3


@contextmanager
def life(address: str, folder: Path, steps: range, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*LIFE, address, str(folder), str(steps.start), str(steps.stop), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the life ended early"
    return dict(json.loads(line))


def spooled_by_killed_lives(address: str, folder: Path, steps: int) -> int:
    """Several lives, each killed once what it trained stands on disk; the first step that is left."""
    part = steps // (LIVES + 1)
    for number in range(LIVES):
        with life(address, folder, range(number * part, (number + 1) * part)) as process:
            assert told(process) | {"spooled": 0, "error": None} == {
                "spooled": 0,
                "error": None,
                "dropped_steps": 0,
                "dropped_observations": 0,
                "rejected": 0,
            }
    return LIVES * part


def unused_address(tmp_path: Path) -> str:
    with serving(tmp_path / "nothing", tmp_path / "nothing.log") as server:
        return server.address


def judged(address: str) -> Mapping[str, bytes]:
    with Client(address, timeout=60) as client:
        client.finish_run("run")
    return said(address)


@pytest.mark.robustness
def test_what_killed_processes_spooled_is_delivered_by_the_next_as_if_there_had_been_no_outage(
    tmp_path: Path, undisturbed_serving: Undisturbed
) -> None:
    address = unused_address(tmp_path)
    folder = tmp_path / "spool"
    step = spooled_by_killed_lives(address, folder, STEPS)
    kept = sum(path.stat().st_size for path in folder.iterdir())
    assert kept > 2_000_000
    with life(address, folder, range(step, STEPS), "--deliver") as process:
        server = Serving(tmp_path / "data", tmp_path / "log", listen=address)
        try:
            assert told(process)["dropped_observations"] == 0
            assert not differences(undisturbed_serving(STEPS), judged(address))
        finally:
            server.kill()
    assert list(folder.iterdir()) == []


@pytest.mark.robustness
def test_kills_of_the_server_and_cuts_while_the_spool_is_delivered_change_nothing(
    tmp_path: Path, undisturbed_serving: Undisturbed
) -> None:
    rng = random.Random(5)  # noqa: S311
    folder = tmp_path / "spool"
    server = Serving(tmp_path / "data", tmp_path / "log")
    address = server.address
    with ChaosProxy(address) as proxy:
        proxy.refuse()
        step = spooled_by_killed_lives(proxy.address, folder, STEPS)
        with life(proxy.address, folder, range(step, STEPS), "--deliver") as process:
            proxy.accept()
            try:
                for fault in range(9):
                    before = proxy.bytes_up
                    wait(lambda before=before: proxy.bytes_up > before or process.poll() is not None)
                    time.sleep(rng.uniform(0, 0.05))
                    if fault % 3 == 0:
                        server.kill()
                        server = Serving(tmp_path / "data", tmp_path / "log", listen=address)
                    else:
                        proxy.cut_after(rng.randrange(1 << 19))
                said_by_life = told(process)
                assert (said_by_life["dropped_observations"], said_by_life["rejected"]) == (0, 0)
                assert not differences(undisturbed_serving(STEPS), judged(address))
            finally:
                server.kill()
    assert list(folder.iterdir()) == []


@pytest.mark.robustness
def test_lives_killed_while_they_deliver_leave_the_rest_to_the_next(
    tmp_path: Path, undisturbed_serving: Undisturbed
) -> None:
    rng = random.Random(7)  # noqa: S311
    folder = tmp_path / "spool"
    with serving(tmp_path / "data", tmp_path / "log") as server, ChaosProxy(server.address) as proxy:
        proxy.refuse()
        step = spooled_by_killed_lives(proxy.address, folder, STEPS)
        proxy.throttle(4_000_000)
        proxy.accept()
        for _ in range(6):
            # Killed before it has trained: it can only deliver what others left.
            with life(proxy.address, folder, range(step, step)) as process:
                before = proxy.bytes_up
                wait(lambda before=before, p=process: proxy.bytes_up > before or p.poll() is not None)
                time.sleep(rng.uniform(0, 0.1))
        proxy.throttle(None)
        with life(proxy.address, folder, range(step, STEPS), "--deliver") as process:
            assert told(process)["dropped_observations"] == 0
            assert not differences(undisturbed_serving(STEPS), judged(server.address))
    assert list(folder.iterdir()) == []


@pytest.mark.robustness
def test_a_disk_without_room_costs_counted_steps_and_the_spool_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    address = unused_address(tmp_path)
    with small_disk(tmp_path / "disk", 4) as disk:
        folder = disk.folder / "spool"
        folder.mkdir()
        with life(address, folder, range(20)) as process:
            assert told(process)["error"] is None
        with life(address, folder, range(20, 20)) as idle:
            told(idle)
            disk.fill(idle.pid)
        # Its file system, or where none could be mounted nothing, is full for the next life, too.
        with life(address, folder, range(20, 60), "--deliver") as process:
            time.sleep(2)
            disk.free(process.pid)
            server = Serving(tmp_path / "data", tmp_path / "log", listen=address)
            try:
                last = told(process)
                with Client(address, timeout=60) as client:
                    run = client.get_run("run")
                assert run.step == 59
                assert last["dropped_observations"] == 128 * last["dropped_steps"]
            finally:
                server.kill()
        assert list(folder.iterdir()) == []
