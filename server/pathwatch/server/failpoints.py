"""Named places where a test can make the process die or fail, as etcd's gofail does.

`PATHWATCH_FAILPOINTS=commit.before=kill@3,snapshot.middle=error` in the environment arms them: at the third
(default: first) time the place is reached, the process kills itself with SIGKILL, or OSError is raised. With
`stall` the thread stands still there for `STALL_SECONDS`, while the others go on, and then the process kills
itself: what should not have been said before that place is then heard. Unarmed they cost a dictionary
look-up. The names in use are listed in docs/reliability.md.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "PATHWATCH_FAILPOINTS"
STALL_SECONDS = 0.3


@dataclass(slots=True)
class _Armed:
    action: str
    countdown: int


def parse(text: str) -> dict[str, _Armed]:
    """`name=kill|stall|error[@n]`, separated by commas. ValueError says what is wrong."""
    armed = {}
    for item in filter(None, text.split(",")):
        name, _, what = item.partition("=")
        action, _, count = what.partition("@")
        if action not in ("kill", "stall", "error") or not (count or "1").isdecimal():
            raise ValueError(f"{VARIABLE}: {item!r} is not NAME=kill|stall|error[@COUNT]")
        armed[name] = _Armed(action, int(count or 1))
    return armed


_armed: Mapping[str, _Armed] = parse(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """The process has come to the place `name`. Raises OSError where a test has asked for that."""
    point = _armed.get(name)
    if point is None:
        return
    point.countdown -= 1
    if point.countdown != 0:
        return
    if point.action == "stall":
        time.sleep(STALL_SECONDS)
    if point.action in ("kill", "stall"):
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.EIO, f"failpoint {name}")
