"""What the tests of several servers share: ranks, and what one undisturbed server makes of what they send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from job import differences, outcome, persistently
from serving import Serving
from trace_load import RUNS, config_of
from trace_ranks import TraceRanks, Undisturbed

from pathwatch.v1 import run_pb2


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceRanks]:
    with TraceRanks(tmp_path_factory.mktemp("ranks")) as running:
        yield running


@pytest.fixture(scope="session")
def configs() -> Mapping[str, run_pb2.RunConfig]:
    """Of all runs that the ranks play."""
    return {run: config_of(run) for run in RUNS}


@pytest.fixture(scope="session")
def undisturbed(
    ranks: TraceRanks, configs: Mapping[str, run_pb2.RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    server = Serving(folder / "data", folder / "log")
    try:
        for run, config in configs.items():
            persistently(
                server.address, lambda client, run=run, config=config: client.create_run(run, config)
            )  # type: ignore[misc]
        ranks.begin([server.address])
        ranks.finish()
        for run in configs:
            persistently(server.address, lambda client, run=run: client.finish_run(run))  # type: ignore[misc]
        return Undisturbed(outcome(server.address), {run: ranks.acked(run) for run in configs})
    finally:
        server.kill()


@pytest.fixture
def the_end(
    ranks: TraceRanks, configs: Mapping[str, run_pb2.RunConfig], undisturbed: Undisturbed
) -> Callable[[str], None]:
    """Waits until the ranks have done, finishes the runs, and finds them as if nothing had happened."""

    def the_end(address: str) -> None:
        reports = ranks.finish()
        for run in configs:
            persistently(address, lambda client, run=run: client.finish_run(run))  # type: ignore[misc]
        found = outcome(address)
        assert differences(found, dict(undisturbed.said)) == []
        reconnects = sum(report["reconnects"] for report in reports)
        print(f"equal to the bit: {len(found)} answers about {len(configs)} runs; {reconnects} streams anew")

    return the_end
