"""A browser, and servers with something to see in it."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, chromium
from playwright.sync_api import Browser
from recorded_run import LASTING, RecordedRun, made_up, recorded

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

OpenTab = Callable[..., Tab]
FLEET = 50


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[OpenTab]:
    """Opens tabs of a server; at the end of the test none of them may have had a problem."""
    with ExitStack() as closing:
        tabs: list[Tab] = []

        def start(address: str, **options: Any) -> Tab:
            tab = Tab(browser, address, **options)
            closing.callback(tab.close)
            tabs.append(tab)
            return tab

        yield start
        assert [tab.problems for tab in tabs] == [[] for _ in tabs]


@pytest.fixture
def client(recorded_server: BackgroundServer) -> Iterator[Client]:
    """What the gRPC API says of the recorded runs."""
    with Client(recorded_server.grpc_address) as calls:
        yield calls


@pytest.fixture(scope="session")
def recorded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """Three recorded runs: `pair`, of two groups that generalize, is told to stop and finished; `other` has
    the same groups and goes on; `text`, of four groups that overfit, with distance per layer, goes on."""
    trace = recorded("text_deferred_bS_s2")
    with (
        BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("recorded"))) as server,
        RecordedRun(server.grpc_address, "pair", recorded("pair_s1")) as pair,
        RecordedRun(server.grpc_address, "other", recorded("ol_pair_s0"), grace_seconds=LASTING) as other,
        RecordedRun(server.grpc_address, "text", trace, per_layer=True, grace_seconds=LASTING) as text,
    ):
        for run in (pair, other, text):
            run.send()
        for run in (pair, other, text):
            run.wait_judged()
        pair.finish()
        wait_ranked(server, "pair")
        yield server


def wait_ranked(server: BackgroundServer, run: str) -> None:
    """Until its checkpoints are, which are kept then. Of a finished run that takes a second; where it takes
    five, those who ask are refused and told to ask again, pages too."""
    deadline = time.monotonic() + 120
    url = f"http://{server.http_address}/api/v1/runs/{run}/checkpoints"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60):
                return
        except urllib.error.HTTPError as refused:
            if refused.code != 503 or time.monotonic() > deadline:
                raise


@pytest.fixture(scope="session")
def fleet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """50 runs of several windows each, every fifth of them finished."""
    with (
        BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("fleet"))) as server,
        ExitStack() as closing,
    ):
        runs = []
        for number in range(FLEET):
            run = RecordedRun(
                server.grpc_address, f"run-{number:02}", made_up(8, number), grace_seconds=LASTING
            )
            runs.append(closing.enter_context(run))
            run.send()
        for number, run in enumerate(runs):
            run.wait_judged()
            if number % 5 == 0:
                run.finish()
        yield server


@pytest.fixture
def live_server(tmp_path: Path) -> Iterator[BackgroundServer]:
    """Of this test alone; empty at first."""
    with BackgroundServer(ServerConfig(data=tmp_path / "live")) as server:
        yield server


@pytest.fixture
def half_way(live_server: BackgroundServer) -> Iterator[RecordedRun]:
    """The run `live` on `live_server`, which stands before its first group generalizes."""
    with RecordedRun(live_server.grpc_address, "live", recorded("ol_pair_s0"), grace_seconds=LASTING) as run:
        run.play(15)
        yield run
