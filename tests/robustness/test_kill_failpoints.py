"""kill -9 at named places of the code: the runs end as if nothing had happened."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from job import Job, Plan, differences, outcome
from rank_process import RankProcesses
from server_process import ServerProcess
from serving import fsck

from pathwatch.server.failpoints import VARIABLE

ROOT = Path(__file__).parents[2]
SHORT = Plan(late=1, stop=5, crash=7, rewind_probe=5, rewind_stream=3, leave=10, last=12)

LIVES = [
    # One life after the other, each counting from its start.
    "commit.before=kill@1 commit.after=kill@12",
    "commit.after=kill@1 commit.before=kill@12",
    "commit.before=stall@6 commit.before=stall@16",
    "ack.sent=kill@1 ack.sent=kill@30",
    "round.closed=kill@1 round.closed=kill@12",
    "round.judged=kill@1 round.judged=kill@12",
    "checkpoint.registered=kill@2 delete.begun=kill@1",
    "attempt.begun=kill@1 attempt.begun=kill@2",
    "attempt.rewound=kill@1 attempt.rebuilt=kill@2",
    "attempt.rewound=kill@2 attempt.rebuilt=kill@1",
    "finish.begun=kill@2 finish.judged=kill@2",
    "finish.judged=kill@2 finish.begun=kill@1",
    # Killed while it recovers from being killed.
    "round.judged=kill@9 recovery.middle=kill@1",
    "attempt.rewound=kill@2 recovery.middle=kill@2 recovery.middle=kill@1 commit.before=kill@1",
]


@pytest.fixture(scope="module")
def undisturbed_short(ranks: RankProcesses, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What the service says of the short job, every message in order, to a server that lived."""
    server = ServerProcess(tmp_path_factory.mktemp("undisturbed") / "data")
    try:
        Job(server.address, ranks, SHORT, in_order=True).run()
        return outcome(server.address)
    finally:
        server.kill()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankProcesses]:
    with RankProcesses(tmp_path_factory.mktemp("ranks")) as running:
        yield running


class Lives:
    """Whenever the server dies by its failpoint, starts it with the next one armed; the last has none."""

    def __init__(self, server: ServerProcess, armed: Sequence[str]) -> None:
        self._server = server
        self._armed = [*armed, ""]
        self.died: list[int] = []
        """Exit codes of the lives before the last."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lives")

    def __enter__(self) -> Lives:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        for armed in self._armed:
            while (code := self._server.exit_code) is None:
                if self._over.wait(0.01):
                    return
            self.died.append(code)
            self._server.wait()
            self._server.launch({VARIABLE: armed})
            self._server.wait_started()


@pytest.mark.robustness
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lives", LIVES)
def test_a_server_killed_at_a_failpoint_loses_nothing(
    lives: str, ranks: RankProcesses, undisturbed_short: Mapping[str, bytes], tmp_path: Path
) -> None:
    first, *others = lives.split()
    server = ServerProcess(tmp_path / "data", {VARIABLE: first})
    try:
        with Lives(server, others) as survived:
            Job(server.address, ranks, SHORT).run()
            found = outcome(server.address)
        assert survived.died == [-signal.SIGKILL] * (1 + len(others)), "a failpoint was not reached"
        assert not differences(found, dict(undisturbed_short))
    finally:
        server.kill()
    assert fsck(tmp_path / "data") == f"{tmp_path / 'data'} is good\n"


def test_every_failpoint_has_a_test_and_stands_in_the_docs() -> None:
    sources = (ROOT / "server").rglob("*.py")
    names = {name for source in sources for name in re.findall(r'\breach\("(.+?)"\)', source.read_text())}
    assert {"commit.before", "snapshot.middle"} < names
    tests = "".join(test.read_text() for test in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in names if f"{name}=kill" not in tests} == set()
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()
