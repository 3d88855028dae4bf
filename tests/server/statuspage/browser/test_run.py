"""The page of a run says what the gRPC API says: verdict, groups, events, checkpoints, timeline, layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from browser import Tab
from page_reading import as_json, card, chart, colours, drawn_points, field, text, whole_number
from playwright.sync_api import Page, expect
from recorded_run import LASTING, RecordedRun, recorded

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.v1 import signal_pb2

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]


def open_run(open_tab: OpenTab, server: BackgroundServer, run: str) -> Page:
    page = open_tab(server.http_address).open(f"/#/runs/{run}")
    expect(page.get_by_role("heading", name=run, level=1)).to_be_visible()
    expect(page.locator("[data-group]").first).to_be_visible()
    return page


@pytest.mark.parametrize("run", ["pair", "text"])
def test_the_verdict_is_that_of_the_api(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client, run: str
) -> None:
    page, signal = open_run(open_tab, recorded_server, run), client.get_signal(run)
    assert signal.action == signal_pb2.ACTION_STOP
    assert text(page, "action").upper() == "STOP"
    assert text(page, "reason") == signal.reason
    assert whole_number(text(page, "stop-at-step")) == signal.stop_at_step
    assert whole_number(text(page, "best-checkpoint")) == signal.best_checkpoint_step
    assert whole_number(text(page, "step")) == client.get_run(run).step
    assert text(page, "state").lower() == ("finished" if run == "pair" else "active")
    assert page.locator("[data-group]").count() == len(signal.groups)
    for group in signal.groups:
        shown = card(page, group.group)
        assert text(shown, "phase") == signal_pb2.Phase.Name(group.phase).removeprefix("PHASE_")
        assert whole_number(text(shown, "since")) == group.since_step
        assert group.group in shown.inner_text()
        assert group.reason in (shown.text_content() or "")
        for name in group.evidence:
            assert name.replace("_", " ") in (shown.text_content() or "").replace("_", " ")


def test_the_timeline_has_the_phases_of_the_windows(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    page = open_run(open_tab, recorded_server, "pair")
    timelines = page.locator('[data-chart="phases"] [data-timeline]')
    expect(timelines).to_have_count(2)
    for timeline in timelines.all():
        group = timeline.get_attribute("data-timeline") or ""
        steps_by_phase: list[tuple[str, list[int]]] = []
        for window in client.get_metrics("pair", group=group).windows:
            phase = signal_pb2.Phase.Name(window.phase).removeprefix("PHASE_")
            if not steps_by_phase or steps_by_phase[-1][0] != phase:
                steps_by_phase.append((phase, []))
            steps_by_phase[-1][1].append(window.step)
        assert len(steps_by_phase) == 5
        segments = timeline.locator("[data-phase]").all()
        assert [segment.get_attribute("data-phase") for segment in segments] == [
            phase for phase, _ in steps_by_phase
        ]
        edges, places = [], []
        for segment, (_, steps) in zip(segments, steps_by_phase, strict=True):
            assert int(segment.get_attribute("data-from") or -1) == steps[0]
            assert int(segment.get_attribute("data-to") or -1) == steps[-1]
            box = segment.bounding_box()
            assert box is not None
            edges.append(box["x"])
            places.append(steps[0])
        # As far apart as the steps are.
        assert np.corrcoef(edges, places)[0, 1] > 0.9999


def test_events_tell_what_was_decided_when(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    page = open_run(open_tab, recorded_server, "pair")
    stops = [s for s in client.get_metrics("pair").signals if s.action == signal_pb2.ACTION_STOP]
    expect(page.locator("[data-event]")).not_to_have_count(0)
    said = page.locator("[data-event]").all_inner_texts()
    assert any("STOP" in event.upper() and str(stops[0].step) in event.replace(",", "") for event in said)
    for group in client.get_signal("pair").groups:
        assert any(
            group.group in event
            and "GENERALIZED" in event
            and str(group.since_step) in event.replace(",", "")
            for event in said
        )


def test_checkpoints_stand_in_the_order_of_the_ranking(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    page = open_run(open_tab, recorded_server, "pair")
    ranked = [str(ranked.checkpoint.step) for ranked in client.rank_checkpoints("pair")]
    rows = page.locator("[data-checkpoint]")
    expect(rows.first).to_be_attached()
    listed = [found.get_attribute("data-checkpoint") for found in rows.all()]
    assert len(listed) >= 5
    assert listed == ranked[: len(listed)]


def test_data_that_can_be_trusted_is_told_so(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    trace = recorded("text_c_s0")
    with RecordedRun(live_server.grpc_address, "whole", trace, grace_seconds=LASTING) as run:
        run.play(5)
        page = open_run(open_tab, live_server, "whole")
        for item in ("freshness", "ranks", "lost", "partial", "backlog"):
            expect(page.locator(f'[data-health="{item}"]')).to_have_attribute("data-state", "ok")
        assert "1" in page.locator('[data-health="ranks"]').inner_text()


def test_missing_ranks_are_told(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    trace = recorded("text_c_s0")
    with RecordedRun(live_server.grpc_address, "torn", trace, world_size=2, grace_seconds=0.2) as run:
        run.play(3)
        page = open_run(open_tab, live_server, "torn")
        health = as_json(page, "runs/torn")["health"]
        assert (health["world_size"], health["connected_ranks"], health["missing_ranks"]) == (2, 1, [1])
        ranks, partial = (page.locator(f'[data-health="{item}"]') for item in ("ranks", "partial"))
        expect(ranks).not_to_have_attribute("data-state", "ok")
        expect(partial).not_to_have_attribute("data-state", "ok")
        assert "1" in ranks.inner_text()
        assert str(health["partial_rounds"]) in partial.inner_text()


def test_layers_over_time(open_tab: OpenTab, recorded_server: BackgroundServer, client: Client) -> None:
    page = open_run(open_tab, recorded_server, "text")
    figure = chart(page, "layers")
    windows = client.get_metrics("text", group=client.get_run("text").groups[0]).windows
    assert drawn_points(figure) == sum(len(window.layer_path_distance) for window in windows)
    expect(figure.locator("canvas").first).to_be_visible()
    assert len(colours(figure)) > 20
    figure.locator("summary").click()
    expect(figure.locator("tbody tr")).not_to_have_count(0)
    newest = figure.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert newest[0] == str(windows[-1].step)
    assert list(map(float, newest[1:])) == pytest.approx(list(windows[-1].layer_path_distance), rel=0.01)
    figure.locator("[tabindex='0']").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    expect(figure).to_contain_text(f"step {windows[-2].step}, layer 1: ")


def test_a_run_without_layers_says_how_to_have_them(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    page = open_run(open_tab, recorded_server, "pair")
    expect(page.get_by_role("main")).to_contain_text("per_layer")


def test_a_run_that_does_not_exist(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    tab = open_tab(recorded_server.http_address)
    tab.allow("404")
    page = tab.open("/#/runs/nobody")
    expect(page.get_by_role("main")).to_contain_text("nobody")
    expect(page.get_by_role("main").get_by_role("link").first).to_be_visible()
    expect(field(page, "action")).to_be_hidden()
