"""Scrapes that come together do not multiply the work."""

from __future__ import annotations

import gzip
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.exporter.endpoint import metrics_application
from pathwatch.server.exporter.scrapes import Scrapes


class HeldCollector(Collector):
    """Counts how often it is asked; waits where a test holds it."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        value = self.asked
        assert self.go_on.wait(30)
        self.at_once -= 1
        yield GaugeMetricFamily("asked", "Times.", value=value)


def waiting() -> int:
    """Scrapes that wait for another's answer: they are at the lock, and not still on their way there."""
    lines, first = inspect.getsourcelines(Scrapes.answer)
    (at_lock,) = (first + place for place, line in enumerate(lines) if "_lock.acquire(" in line)
    frames: Iterable[FrameType] = sys._current_frames().values()
    return sum(frame.f_code is Scrapes.answer.__code__ and frame.f_lineno == at_lock for frame in frames)


def test_each_scrape_that_comes_alone_is_fresh() -> None:
    collector = HeldCollector()
    scrapes = Scrapes(collector)
    for times in (1, 2, 3):
        assert f"asked {times}.0\n".encode() in scrapes.answer("", "").body


def test_scrapes_that_wait_share_the_next_answer(eventually: Callable[[Callable[[], Any]], Any]) -> None:
    collector = HeldCollector()
    collector.go_on.clear()
    scrapes = Scrapes(collector)
    with ThreadPoolExecutor(21) as pool:
        first = pool.submit(scrapes.answer, "", "")
        eventually(lambda: collector.asked == 1)
        others = [pool.submit(scrapes.answer, "", "") for _ in range(20)]
        eventually(lambda: waiting() == 20)
        collector.go_on.set()
        assert b"asked 1.0\n" in first.result(30).body
        answers = [other.result(30).body for other in others]
    assert collector.most_at_once == 1
    assert collector.asked == 2
    assert not any(b"asked 1.0\n" in answer for answer in answers)


def test_who_waits_gets_the_format_that_was_asked_for(eventually: Callable[[Callable[[], Any]], Any]) -> None:
    collector = HeldCollector()
    collector.go_on.clear()
    scrapes = Scrapes(collector)
    asked = [("", ""), ("application/openmetrics-text", ""), ("", "gzip"), ("", "")]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(scrapes.answer, *headers) for headers in asked]
        eventually(lambda: waiting() == 3)
        collector.go_on.set()
        got = [answer.result(30) for answer in answers]
    assert [(one.content_type.startswith("text/plain"), one.is_gzip) for one in got] == [
        (True, False),
        (False, False),
        (True, True),
        (True, False),
    ]


def test_another_format_is_another_answer() -> None:
    scrapes = Scrapes(HeldCollector())
    plain = scrapes.answer("text/plain", "")
    openmetrics = scrapes.answer("application/openmetrics-text;version=1.0.0", "")
    zipped = scrapes.answer("text/plain", "br, gzip;q=0.5")
    assert plain.content_type.startswith("text/plain")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
    assert (plain.is_gzip, zipped.is_gzip) == (False, True)
    assert gzip.decompress(zipped.body) == plain.body.replace(b"asked 1.0", b"asked 3.0")


def test_nobody_waits_for_ever_for_a_scrape_that_hangs(
    eventually: Callable[[Callable[[], Any]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathwatch.server.exporter.scrapes.WAIT_SECONDS", 0.05)
    collector = HeldCollector()
    collector.go_on.clear()
    registry = CollectorRegistry()
    registry.register(collector)
    application = metrics_application(registry)
    said: list[str] = []

    def scrape() -> bytes:
        environ = {"REQUEST_METHOD": "GET"}
        return b"".join(application(environ, lambda status, headers: said.append(status)))

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(scrape)
        eventually(lambda: collector.asked)
        assert b"has not come to its end" in scrape()
        assert said == ["503 Service Unavailable"]
        collector.go_on.set()
        assert b"asked 1.0\n" in hanging.result(30)
    assert b"asked 2.0\n" in scrape()


def test_a_collector_that_fails_leaves_nothing_behind() -> None:
    collector = HeldCollector()
    scrapes = Scrapes(collector)
    before = scrapes.answer("", "")
    collector.collect, collect = None, collector.collect  # type: ignore[assignment,method-assign]
    try:
        scrapes.answer("", "")
    except TypeError:
        failed = True
    collector.collect = collect  # type: ignore[method-assign]
    assert failed
    assert scrapes.answer("", "").body != before.body
