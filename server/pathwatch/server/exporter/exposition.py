"""A scrape's text, in the format that the scraper asks for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pathwatch.server.exporter.prepared import PreparedFamily


def exposition(collector: Collector, accept: str) -> tuple[str, bytes]:
    """Content type and text of all that is collected; `accept` is the header of the request.

    Lines that are at hand come first. prometheus_client writes the others, and the end.
    """
    encode, content_type = choose_encoder(accept)
    openmetrics = content_type.startswith("application/openmetrics-text")
    texts, others = [], []
    for family in collector.collect():
        if isinstance(family, PreparedFamily):
            texts.append(family.text(openmetrics=openmetrics))
        else:
            others.append(family)
    return content_type, "".join(texts).encode() + encode(_Collected(others))


class _Collected(Collector):
    """Families that were collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
