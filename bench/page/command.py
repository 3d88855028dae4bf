"""The command line of `python bench/page`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from browser import chromium
from playwright.sync_api import Browser
from recorded_run import RecordedRun, made_up, recorded

from bench.sidecar import Sidecar

DESCRIPTION = """\
How long does someone wait for the status page? A sidecar holds 50 runs; measured is the time from navigation
until something is on the screen, each time in a new browser profile that has nothing cached, in turn:

  blank        /healthz, a line of text: what the browser itself costs
  list         the list with all of its runs
  first chart  the page of a run of 161 rounds, until the first chart is drawn

Fails when the median of `first chart` is above the aim of one second.
"""
AIM_SECONDS = 1.0
RUN = "pair"
POINTS = "figure[data-chart][data-points]:not([data-points='0'])"
CONDITIONS = {
    "blank": ("/healthz", "() => document.body !== null && document.body.textContent !== ''"),
    "list": ("/#/", "() => document.querySelectorAll('[data-run]').length >= {runs}"),
    "first chart": (f"/#/runs/{RUN}", f'() => document.querySelector("{POINTS}") !== null'),
}
WATCH = """
(() => {
  const reached = %s;
  // Checked whenever the page was drawn, so that what counts can be seen.
  const check = () => {
    if (reached()) window.pathwatchReached = performance.now();
    else requestAnimationFrame(check);
  };
  requestAnimationFrame(check);
})();
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print JSON lines; exit code 1 when the aim was missed."""
    parser = argparse.ArgumentParser(
        prog="python bench/page",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=50, help="runs of the sidecar (50)")
    parser.add_argument("--blocks", type=int, default=10, help="turns of each condition (10)")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="pathwatch-page-") as folder,
        Sidecar(Path(folder) / "data") as server,
    ):
        _feed(server.grpc, options.runs)
        seconds = _measure(server.http, options.runs, options.blocks)
    blank = float(np.median(seconds["blank"]))
    for condition, values in seconds.items():
        p50, p90 = (round(float(value), 3) for value in np.percentile(values, [50, 90]))
        ratio = round(p50 / blank, 1)
        print(json.dumps({"condition": condition, "p50": p50, "p90": p90, "to_blank": ratio}))
    median = float(np.median(seconds["first chart"]))
    print(json.dumps({"aim": AIM_SECONDS, "first_chart": round(median, 3), "load": os.getloadavg()[0]}))
    sys.exit(0 if median <= AIM_SECONDS else 1)


def _feed(address: str, runs: int) -> None:
    with ExitStack() as closing:
        started = []
        for number in range(runs - 1):
            started.append(
                closing.enter_context(RecordedRun(address, f"run-{number:02}", made_up(8, number)))
            )
        started.append(closing.enter_context(RecordedRun(address, RUN, recorded("pair_s1"))))
        for run in started:
            run.send()
        for run in started:
            run.wait_judged()


def _measure(address: str, runs: int, blocks: int) -> dict[str, list[float]]:
    """Seconds by condition."""
    seconds: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
    with chromium() as browser:
        for _ in range(blocks):
            for condition, (path, reached) in CONDITIONS.items():
                wanted = reached.replace("{runs}", str(runs))
                seconds[condition].append(_navigate(browser, f"http://{address}{path}", wanted))
    return seconds


def _navigate(browser: Browser, url: str, reached: str) -> float:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.add_init_script(WATCH % reached)
        page.goto(url)
        milliseconds = page.wait_for_function("() => window.pathwatchReached", polling=100).json_value()
        return float(milliseconds) / 1000
    finally:
        context.close()
