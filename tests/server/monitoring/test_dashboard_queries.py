"""Every query of the dashboards, asked of a real Prometheus that scrapes a real server while runs play."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from grafana import Dashboard, Values
from lone_shard import lone_shard
from prometheus import PrometheusProcess
from recorded_run import RecordedRun, made_up, recorded

from pathwatch.client import Client, PathwatchError
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, ServerConfig
from pathwatch.v1 import run_pb2, signal_pb2

pytestmark = pytest.mark.tools

MONITORING = Path(__file__).parents[3] / "server/pathwatch/server/monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yaml"))
RUN = Dashboard(MONITORING / "dashboards" / "run.json")
FLEET = Dashboard(MONITORING / "dashboards" / "fleet.json")
PATIENCE_SECONDS = 86400
"""Longer than all tests take: a silent run reads otherwise than it did when it was scraped."""
# Of answers that are known, and per layer; with samples kept back.
PAIR, KEPT_BACK, ENDED = "pair", "kept.back", "ended"


@dataclass(frozen=True, slots=True)
class Watched:
    """A Prometheus and what it watched from `start` to `end`: a server, and a shard that has no run."""

    prometheus: PrometheusProcess
    client: Client
    start: float
    end: float

    def ask(self, board: Dashboard, expr: str, values: Values, *, instant: bool) -> list[dict[str, Any]]:
        """The series of an answer that hold a number."""
        filled = board.filled(expr, values)
        if instant:
            found = self.prometheus.query(filled, self.end)
            return [one for one in found if not math.isnan(float(one["value"][1]))]
        found = self.prometheus.query_range(filled, start=self.start, end=self.end)
        return [one for one in found if not all(math.isnan(float(value)) for _, value in one["values"])]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    told = folder / "webhooks.yaml"
    # Nobody listens there.
    told.write_text("- {name: nobody, format: slack, url: 'http://127.0.0.1:1/'}\n")
    config = ServerConfig(
        data=folder / "data",
        webhooks=told,
        limits=Limits(runs=3),
        snapshot_minutes=1 / 60,
    )
    with ExitStack() as closing:
        server = closing.enter_context(BackgroundServer(config))
        shard = closing.enter_context(lone_shard(folder / "shard"))
        targets = [server.http_address, shard.http_address]
        prometheus = closing.enter_context(PrometheusProcess(folder / "prometheus", targets, RULES))
        client = closing.enter_context(Client(server.grpc_address))
        prometheus.wait_scraped()
        start = time.time()
        pair = closing.enter_context(
            RecordedRun(
                server.grpc_address,
                PAIR,
                recorded("ol_pair_s0"),
                per_layer=True,
                grace_seconds=PATIENCE_SECONDS,
            )
        )
        play_until(signal_pb2.ACTION_CHECKPOINT, pair, client, prometheus)
        kept_back = closing.enter_context(
            RecordedRun(
                server.grpc_address,
                KEPT_BACK,
                recorded("text_deferred_bS_s2"),
                grace_seconds=PATIENCE_SECONDS,
            )
        )
        play_until(signal_pb2.ACTION_STOP, kept_back, client, prometheus)
        with RecordedRun(server.grpc_address, ENDED, made_up(3, 1)) as ended:
            ended.play()
            ended.finish()
        with pytest.raises(PathwatchError):
            client.create_run("one-more", run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)))
        pair.play(1)
        prometheus.wait_scraped(3)
        # Not in a gap: on a busy machine a scrape may take longer than a second, and has then failed.
        steadily = (
            "count(min_over_time(up[5s]) == 1 and count_over_time(up[5s]) >= 4) == 2 and on () ("
            "min_over_time(up[5s]) == 1 and count_over_time(up[5s]) >= 4 "
            "and on (instance) count_over_time(run:pathwatch_groups:count_by_phase[2s]) >= 2)"
        )
        end = 0.0
        while not prometheus.query(steadily, end):
            end = prometheus.wait_answered(steadily)
            prometheus.wait_scraped()  # one that was under way may have failed since
        yield Watched(prometheus, client, start, end)


def play_until(action: int, run: RecordedRun, client: Client, prometheus: PrometheusProcess) -> None:
    """Step by step; whatever is advised is scraped before it changes."""
    advised = signal_pb2.ACTION_CONTINUE
    while advised != action:
        run.play(1)
        if (now := client.get_signal(run.name).action) != advised:
            advised = now
            prometheus.wait_scraped(2)


def choices(board: Dashboard, watched: Watched, name: str, values: Values) -> list[str]:
    """What the variable offers: Grafana asks for the label's values of these series."""
    query = str(board.variables[name]["query"])
    selector, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    found = watched.prometheus.query(board.filled(selector, values), watched.end)
    return sorted({one["metric"][label] for one in found})


def test_the_variables_offer_what_there_is(watched: Watched) -> None:
    assert choices(RUN, watched, "run", {}) == [ENDED, KEPT_BACK, PAIR]
    assert choices(RUN, watched, "group", {"run": PAIR}) == ["add:0.6", "sub:0.6"]
    assert choices(RUN, watched, "group", {"run": KEPT_BACK}) == ["bible", "c", "json", "py"]
    instances = choices(FLEET, watched, "sidecar", {})
    assert [instance.partition(":")[0] for instance in instances] == ["127.0.0.1"] * 2


def test_every_query_of_run_has_an_answer(watched: Watched) -> None:
    """For all groups; and for a single one the same, as where a panel is repeated for each."""
    silent = []
    for asked in RUN.queries():
        answers = {
            run: watched.ask(RUN, asked.expr, {"run": run}, instant=asked.instant)
            for run in (PAIR, KEPT_BACK)
        }
        if not any(answers.values()):
            silent.append((asked.where, RUN.filled(asked.expr, {"run": PAIR})))
        for run, found in answers.items():
            for group in {one["metric"]["group"] for one in found if one["metric"].get("group")}:
                alone = watched.ask(RUN, asked.expr, {"run": run, "group": group}, instant=asked.instant)
                assert [one for one in found if one["metric"].get("group") == group] == alone, asked
    assert silent == []


def test_a_run_of_the_same_name_on_another_sidecar_is_left_out(watched: Watched) -> None:
    (here,) = choices(RUN, watched, "sidecar", {"run": PAIR})
    assert choices(RUN, watched, "address", {"run": PAIR}) == [here]
    for asked in RUN.queries():
        everywhere, chosen, elsewhere = (
            watched.ask(RUN, asked.expr, {"run": PAIR} | sidecar, instant=asked.instant)
            for sidecar in ({}, {"sidecar": here}, {"sidecar": "elsewhere:9464"})
        )
        assert chosen == everywhere, asked
        assert elsewhere == [], asked


def test_every_query_of_fleet_has_an_answer(watched: Watched) -> None:
    silent = [
        (asked.where, FLEET.filled(asked.expr, {}))
        for asked in FLEET.queries()
        if not watched.ask(FLEET, asked.expr, {}, instant=asked.instant)
    ]
    assert silent == []


def column(board: Dashboard, panel: str, title: str) -> str:
    """The query of a table's column."""
    shown = board.panel(panel)
    names = shown["transformations"][1]["options"]["renameByName"]
    return next(
        str(target["expr"]) for target in shown["targets"] if names[f"Value #{target['refId']}"] == title
    )


def words(board: Dashboard, panel: str) -> dict[str, str]:
    """What the panel shows for its numbers."""
    (mapping,) = board.panel(panel)["fieldConfig"]["defaults"]["mappings"]
    return {number: meaning["text"] for number, meaning in mapping["options"].items()}


@pytest.mark.parametrize("run", [PAIR, KEPT_BACK])
def test_phases_and_advice_read_as_the_service_says(watched: Watched, run: str) -> None:
    signal = watched.client.get_signal(run)
    phases = watched.ask(
        RUN, column(RUN, "Why: the numbers behind each phase", "phase"), {"run": run}, instant=True
    )
    shown = {one["metric"]["group"]: words(RUN, "Phases")[one["value"][1]] for one in phases}
    assert shown == {
        status.group: signal_pb2.Phase.Name(status.phase).removeprefix("PHASE_") for status in signal.groups
    }
    (advice,) = watched.ask(RUN, RUN.panel("Advice")["targets"][0]["expr"], {"run": run}, instant=True)
    said = signal_pb2.Action.Name(signal.action).removeprefix("ACTION_")
    assert words(RUN, "Advice")[advice["value"][1]] == said
    (best,) = watched.ask(RUN, RUN.panel("Best checkpoint")["targets"][0]["expr"], {"run": run}, instant=True)
    assert float(best["value"][1]) == signal.best_checkpoint_step


@pytest.mark.parametrize(("run", "said"), [(PAIR, "fresh"), (ENDED, "finished"), ("no-such-run", None)])
def test_freshness_is_told_from_the_end_of_a_run(watched: Watched, run: str, said: str | None) -> None:
    found = watched.ask(RUN, RUN.panel("Signal")["targets"][0]["expr"], {"run": run}, instant=True)
    assert [words(RUN, "Signal")[one["value"][1]] for one in found] == ([] if said is None else [said])


def test_a_sidecar_that_went_is_known_and_not_up(
    tmp_path: Path, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    shown = {target["legendFormat"]: target["expr"] for target in FLEET.panel("Sidecars up")["targets"]}
    with ExitStack() as closing:
        server = BackgroundServer(ServerConfig(data=tmp_path / "data"))
        with server:
            address = server.http_address
            prometheus = closing.enter_context(PrometheusProcess(tmp_path / "prometheus", [address]))
            prometheus.wait_scraped()
            # The one after it may have taken longer than a second and failed.
            eventually(lambda: counted(prometheus, shown) == {"up": 1, "known": 1})
        eventually(lambda: counted(prometheus, shown) == {"up": 0, "known": 1})


def counted(prometheus: PrometheusProcess, queries: dict[str, str]) -> dict[str, float]:
    """The one value of each."""
    return {name: float(prometheus.query(expr)[0]["value"][1]) for name, expr in queries.items()}


@pytest.mark.parametrize("group", ["bible", "c", "json", "py"])
@pytest.mark.parametrize("title", ["Path distance of $group", "Loss gap of $group"])
def test_bands_lie_around_their_line(watched: Watched, title: str, group: str) -> None:
    drawn = {}
    for target in RUN.panel(title)["targets"]:
        (one,) = watched.ask(RUN, target["expr"], {"run": KEPT_BACK, "group": group}, instant=False)
        drawn[target["legendFormat"]] = dict(one["values"])
    assert drawn["mean"].keys() == drawn["upper"].keys() == drawn["lower"].keys()
    for at, mean in drawn["mean"].items():
        above, below = float(drawn["upper"][at]) - float(mean), float(mean) - float(drawn["lower"][at])
        assert above == pytest.approx(below)
        assert above >= 0
    assert any(float(drawn["upper"][at]) > float(mean) for at, mean in drawn["mean"].items())


@pytest.mark.parametrize(
    ("board", "title", "keys"),
    [(RUN, "Why: the numbers behind each phase", {"group"}), (FLEET, "Runs", {"run", "instance"})],
)
def test_columns_of_a_table_merge_into_its_rows(
    watched: Watched, board: Dashboard, title: str, keys: set[str]
) -> None:
    """Grafana merges answers whose labels are the same, and no others."""
    rows: set[tuple[str, ...]] = set()
    for target in board.panel(title)["targets"]:
        found = watched.ask(board, target["expr"], {"run": KEPT_BACK}, instant=True)
        assert all(one["metric"].keys() == keys for one in found), target["expr"]
        rows |= {tuple(sorted(one["metric"].values())) for one in found}
    assert len(rows) == {"Runs": 3}.get(title, 4)


def test_events_are_points_where_something_began(watched: Watched) -> None:
    """One for every change, not one for as long as it lasts."""
    events = {event["name"]: event for event in RUN.json["annotations"]["list"]}

    def times(name: str, run: str) -> list[tuple[str, float]]:
        found = watched.ask(RUN, events[name]["expr"], {"run": run}, instant=False)
        assert all(float(value) > 0 for one in found for _, value in one["values"])
        return sorted((one["metric"].get("step", ""), at) for one in found for at, _ in one["values"])

    assert len(times("Stop advised", KEPT_BACK)) == 1
    assert len(times("Checkpoint advised", PAIR)) == 1
    assert times("Stop advised", PAIR) == []
    assert len(times("Attempt", PAIR)) == 1
    chosen = times("Checkpoint chosen", KEPT_BACK)
    assert str(watched.client.get_signal(KEPT_BACK).best_checkpoint_step) in {step for step, _ in chosen}


def test_rows_of_layers_come_in_order(watched: Watched) -> None:
    (target,) = RUN.panel("Path distance by layer, $group")["targets"]
    found = watched.ask(RUN, target["expr"], {"run": PAIR, "group": "add:0.6"}, instant=False)
    assert [one["metric"]["layer"] for one in found] == ["000", "001", "002"]
