"""What is wrong with how metrics are to be pushed."""

from __future__ import annotations

import importlib.util
from urllib.parse import urlsplit

_NEEDED = ("opentelemetry.sdk.metrics", "opentelemetry.exporter.otlp.proto.http.metric_exporter")


def otlp_problems(endpoint: str | None, interval_seconds: float) -> list[str]:
    """Each one line; empty where metrics can be pushed, or are not to be."""
    problems = []
    if not 1 <= interval_seconds <= 86400:
        problems.append("otlp_interval_seconds: must be a number of seconds from 1 to 86400")
    if endpoint is None:
        return problems
    try:
        url = urlsplit(endpoint)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port or an address that is none
        return [*problems, _no_url()]
    if not is_complete:
        problems.append(_no_url())
    elif url.username is not None or url.query or url.fragment:
        problems.append("otlp_endpoint: takes no password and no query; use OTEL_EXPORTER_OTLP_HEADERS")
    if not _has_exporter():
        needs = "pip install 'pathwatch[otlp]'"
        problems.append(f"otlp_endpoint: OpenTelemetry's exporter is not installed; it needs: {needs}")
    return problems


def otlp_url(endpoint: str) -> str:
    """Where metrics go: the standard path is added where only a host is given."""
    url = urlsplit(endpoint)
    return url._replace(path="/v1/metrics").geturl() if url.path in ("", "/") else endpoint


def _no_url() -> str:
    return "otlp_endpoint: must be like http://collector:4318"


def _has_exporter() -> bool:
    try:
        return None not in [importlib.util.find_spec(name) for name in _NEEDED]
    except ModuleNotFoundError:  # a package that they are in
        return False
