"""Pushes what `/metrics` shows to a collector of OpenTelemetry, where nothing scrapes."""

from __future__ import annotations

import logging
import threading
import time
from importlib.metadata import version
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry

from pathwatch.server.config import otlp_url
from pathwatch.server.exporter.otlp_data import OtlpData

log = logging.getLogger("pathwatch.server")

_LAST_SECONDS = 5.0
"""How long a stop waits for the last push."""


class OtlpPush:
    """Pushes in a thread of its own; nobody waits for it, but `close` for a moment.

    Headers, time-out, compression and certificates come from the environment, OTEL_EXPORTER_OTLP_…, and
    further attributes of the resource from OTEL_RESOURCE_ATTRIBUTES.
    """

    def __init__(
        self, registry: CollectorRegistry, endpoint: str, interval_seconds: float, instance: str
    ) -> None:
        """`instance` tells this server from others."""
        self._registry = registry
        self._url = otlp_url(endpoint)
        self._interval = interval_seconds
        self._session = _Session()
        self._exporter = OTLPMetricExporter(endpoint=self._url, session=self._session)
        own = {"service.name": "pathwatch", "service.instance.id": instance}
        resource = Resource({**own, "service.version": version("pathwatch")})
        self._data = OtlpData(resource.merge(OTELResourceDetector().detect()), time.time_ns())
        self._failures = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pathwatch-otlp", daemon=True)
        self._words = _Words(self._thread)

    def start(self) -> None:
        """Push at once, and then as often as is to be."""
        self._words.listen()
        self._thread.start()

    def close(self) -> None:
        """Push a last time, and end; a collector that does not answer is not waited for long."""
        self._closing.set()
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            log.warning("the last metrics could not be pushed to %s within %g s", self._url, _LAST_SECONDS)
        self._exporter.shutdown()

    def _run(self) -> None:
        try:
            self._push_until_closed()
        finally:
            self._words.end()  # not before: a push that `close` does not wait for still has its say

    def _push_until_closed(self) -> None:
        while True:
            is_last = self._closing.is_set()
            self._push()
            if is_last:
                return
            self._closing.wait(self._interval)

    def _push(self) -> None:
        self._words.first = self._session.failure = ""
        try:
            data = self._data.convert(self._registry.collect(), time.time_ns())
            exported = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception as error:  # of a plug-in's metric or of the library: the next push may be better
            self._tell_failure(f"{type(error).__name__}: {error}")
            return
        if not exported or self._session.failure:
            self._tell_failure(self._session.failure or self._words.first)
        elif self._failures:
            log.warning("metrics are pushed to %s again, after %d that failed", self._url, self._failures)
            self._failures = 0

    def _tell_failure(self, why: str) -> None:
        self._failures += 1
        if self._failures == 1:
            again = f"tried again every {self._interval:g} s, and said when it succeeds"
            reason = " ".join(why.split())[:500]
            log.warning("metrics cannot be pushed to %s: %s (%s)", self._url, reason, again)


class _Session(requests.Session):
    """Keeps why a push failed, which the library does not always say.

    It even takes a redirect for success, and follows none. What it tries again, in the end with no time left
    to do so, failed for the reason of the first time.
    """

    failure = ""

    def request(self, *arguments: Any, **options: Any) -> Any:
        """See requests."""
        try:
            response = super().request(*arguments, **options)
        except Exception as error:
            self.failure = self.failure or str(error)
            raise
        self.failure = self._failure(response)
        return response

    @staticmethod
    def _failure(response: requests.Response) -> str:
        if 200 <= response.status_code < 300:
            return ""
        location = response.headers.get("Location", "").partition("?")[0]
        elsewhere = f", to {location}" if location else ""
        return f"{response.status_code} {response.reason}{elsewhere}"


class _Words(logging.Filter):
    """Takes what the library logs of our pushes, several lines each time, and keeps the first."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        self._thread = thread
        self.first = ""

    def listen(self) -> None:
        """From now on."""
        logging.getLogger(OTLPMetricExporter.__module__).addFilter(self)

    def end(self) -> None:
        """No more: a later thread may have the number of this one."""
        logging.getLogger(OTLPMetricExporter.__module__).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether others are to see it."""
        if record.thread != self._thread.ident:
            return True
        self.first = self.first or record.getMessage()
        return False
