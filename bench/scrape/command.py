"""The command line of `python bench/scrape`."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from bench.overload.paced import PacedRun
from bench.scrape.fleet import Fleet
from bench.scrape.scraper import Scraper, Taken, fetch, scrape
from bench.scrape.static_series import StaticSeries, write
from bench.sidecar import Sidecar

DESCRIPTION = """\
What does a scrape of many runs take, and what does scraping cost those who send data? A server holds 100 runs
of 8 groups. Scrapes are timed from connecting to the last byte, over HTTP, in OpenMetrics; CPU time is that
of the server, which says more than the clock on a machine that others use, too:

  unchanged          no new window since the last scrape, gzipped as Prometheus asks for it
  unchanged_plain    the same without compression
  changed            every group of every run has a new window
  prometheus_client  as many series that never change, written by prometheus_client in this process, in turn
                     with the others: no HTTP, no compression

Then one run of four streams sends as fast as it can (messages acknowledged per second), and another sends a
step every quarter of a second (seconds from its last message to its signal), in turns without a scraper and
with one that scrapes every second.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python bench/scrape",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=100, help="runs (100)")
    parser.add_argument("--groups", type=int, default=8, help="groups of each (8)")
    parser.add_argument("--scrapes", type=int, default=60, help="scrapes without a change (60)")
    parser.add_argument("--steps", type=int, default=6, help="scrapes after a new window everywhere (6)")
    parser.add_argument("--blocks", type=int, default=4, help="turns with and without a scraper (4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a turn (10)")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="pathwatch-scrape-") as folder,
        Sidecar(Path(folder) / "data") as server,
    ):
        fleet = Fleet(server.grpc, runs=options.runs, groups=options.groups)
        _scrapes(server, fleet, options)
        fleet.close()
        _ingest(server, options)


def _scrapes(server: Sidecar, fleet: Fleet, options: argparse.Namespace) -> None:
    fleet.send_step()
    lines = gzip.decompress(fetch(server.http)).decode().splitlines()
    series = sum(not line.startswith("#") for line in lines)
    families = sum(line.startswith("# TYPE ") for line in lines)
    static = StaticSeries(series, families=families)
    kinds: dict[str, Callable[[], Taken]] = {
        "unchanged": lambda: scrape(server),
        "unchanged_plain": lambda: scrape(server, compressed=False),
        "prometheus_client": lambda: write(static),
    }
    for measure in kinds.values():
        measure()  # what is made once
    taken: dict[str, list[Taken]] = {name: [] for name in (*kinds, "changed")}
    for _ in range(options.scrapes):
        for name, measure in kinds.items():
            taken[name].append(measure())
    for _ in range(options.steps):
        fleet.send_step()
        time.sleep(1.0)  # acknowledgements and the like
        taken["changed"].append(scrape(server))
    sizes = {"bytes": len(fetch(server.http, compressed=False)), "gzipped_bytes": len(fetch(server.http))}
    _say({"series": series, "families": families, **sizes})
    for name, values in taken.items():
        _say({"scrape": name, **_milliseconds(one.wall for one in values), "cpu_ms": _cpu(values)})
    client = _cpu(taken["prometheus_client"])
    _say({"cpu_to_prometheus_client": {name: round(_cpu(of) / client, 3) for name, of in taken.items()}})


def _ingest(server: Sidecar, options: argparse.Namespace) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}
    latencies: dict[bool, list[float]] = {False: [], True: []}
    taken: list[Taken] = []
    with PacedRun(server.grpc, "paced") as paced:
        list(paced.latencies(3, interval=0.25))  # imports and caches
        for block in range(options.blocks):
            for scraped in (False, True) if block % 2 else (True, False):
                scraper = Scraper(server, 1.0)
                with scraper if scraped else nullcontext():
                    latencies[scraped] += paced.latencies(options.seconds, interval=0.25)
                    rates[scraped].append(_flood(server.grpc, f"flood-{block}-{scraped}", options.seconds))
                taken += scraper.taken
    for scraped in (False, True):
        _say(
            {
                "scraper": "every second" if scraped else "none",
                "messages_per_s": [round(rate) for rate in rates[scraped]],
                "signal": _milliseconds(latencies[scraped]),
            }
        )
    _say({"scrape": "under load", **_milliseconds(one.wall for one in taken)})
    ratios = {
        f"signal_p{p}": round(
            float(np.percentile(latencies[True], p) / np.percentile(latencies[False], p)), 3
        )
        for p in (50, 90, 99)
    }
    ratios["messages"] = round(float(np.median(rates[True]) / np.median(rates[False])), 3)
    _say({"cores": os.cpu_count(), "load": os.getloadavg()[0], "with_to_without_scraper": ratios})


def _flood(address: str, run: str, seconds: float) -> float:
    """Messages acknowledged per second."""
    command = [sys.executable, "-m", "bench.overload.flood", address, run, "ingest"]
    command += ["--streams", "4", "--seconds", str(seconds)]
    done = subprocess.run(
        command, cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, text=True, check=True
    )
    rate: float = json.loads(done.stdout)["messages_per_s"]
    return rate


def _milliseconds(seconds: Iterable[float]) -> dict[str, float]:
    values = 1000 * np.array(list(seconds))
    return {
        "count": len(values),
        "median_ms": round(float(np.median(values)), 1),
        "p99_ms": round(float(np.percentile(values, 99)), 1),
    }


def _cpu(taken: Sequence[Taken]) -> float:
    """Mean, milliseconds."""
    return round(1000 * sum(one.cpu for one in taken) / len(taken), 1)


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)
