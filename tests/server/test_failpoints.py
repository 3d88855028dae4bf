"""Failpoints do what the environment asks for, where and when it asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pathwatch.server import failpoints

REACH = """
from pathwatch.server.failpoints import reach
for place in ("a", "b", "a", "b"):
    try:
        reach(place)
        print(place, flush=True)
    except OSError as error:
        print(error, flush=True)
"""

REACH_BESIDE_A_TALKER = (
    """
import threading, time
def talk():
    while True:
        print("still here", flush=True)
        time.sleep(0.01)
threading.Thread(target=talk, daemon=True).start()
"""
    + REACH
)


def reached(armed: str, code: str = REACH) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, failpoints.VARIABLE: armed},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_nothing_happens_unarmed() -> None:
    assert reached("") == (0, ["a", "b", "a", "b"])


def test_the_process_dies_at_the_place_and_time_asked_for() -> None:
    assert reached("b=kill@2") == (-signal.SIGKILL, ["a", "b", "a"])


def test_other_threads_go_on_while_one_stalls() -> None:
    code, heard = reached("b=stall", REACH_BESIDE_A_TALKER)
    assert code == -signal.SIGKILL
    said = "".join(heard)  # lines of two threads may run into each other
    assert "a" in said
    assert "b" not in said
    assert said.count("still here") > 1


def test_an_error_is_raised_once() -> None:
    assert reached("a=error") == (0, ["[Errno 5] failpoint a", "b", "a", "b"])


@pytest.mark.parametrize("wrong", ["a", "a=explode", "a=kill@x"])
def test_a_wrong_request_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="NAME=kill"):
        failpoints.parse(wrong)
