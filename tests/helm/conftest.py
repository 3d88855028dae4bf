"""What every test of the chart starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from charts import CI_VALUES, Manifest, rendered

from pathwatch.server.access.tokens import hash_of

TLS = Path(__file__).parents[1] / "data" / "tls"


@pytest.fixture(params=CI_VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def values_file(request: pytest.FixtureRequest) -> Path:
    """Each of helm/pathwatch/ci."""
    path: Path = request.param
    return path


@pytest.fixture
def release(values_file: Path) -> list[Manifest]:
    """The manifests of a release with each of them."""
    return rendered(yaml.safe_load(values_file.read_text()))


@pytest.fixture
def secrets() -> Mapping[str, Mapping[str, str]]:
    """What stands in the secrets that helm/pathwatch/ci names."""
    entry = {"name": "job", "sha256": hash_of("x" * 43).hex(), "scopes": ["ingest", "read"]}
    tokens = yaml.safe_dump([entry])
    webhook = {"name": "own", "format": "pathwatch", "url_file": "url", "events": ["phase"]}
    certificate = {"tls.crt": (TLS / "server.pem").read_text(), "tls.key": (TLS / "server.key").read_text()}
    return {
        "pathwatch-tls": certificate,
        "watch-tls": certificate,
        "pathwatch-clients": {"ca.crt": (TLS / "ca.pem").read_text()},
        "pathwatch-tokens": {"tokens.yaml": tokens, "readers.yaml": tokens},
        "redis-user": {"password": "of the user"},
        "redis-sentinel": {"password": "of the sentinels"},
        "redis-ca": {"ca.crt": (TLS / "ca.pem").read_text()},
        "pathwatch-redis": {
            "tls.crt": (TLS / "client.pem").read_text(),
            "tls.key": (TLS / "client.key").read_text(),
        },
        "pathwatch-ca": {"ca.crt": (TLS / "ca.pem").read_text()},
        "pathwatch-token": {"token": "x" * 43},
        "pathwatch-relay": {
            "tls.crt": (TLS / "client.pem").read_text(),
            "tls.key": (TLS / "client.key").read_text(),
        },
        "relay-tls": certificate,
        "pathwatch-webhooks": {
            "webhooks.yaml": yaml.safe_dump([webhook]),
            "url": "https://hooks.example.org/x",
        },
    }
