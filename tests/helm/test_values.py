"""Values: what is wrong is refused, in words; what there is, is explained and has a default."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
import yaml
from charts import CHART, ROOT, rendered

from pathwatch.server.config import Limits, ServerConfig, meanings
from pathwatch.server.config.shards import MAX_LEASE_SECONDS, MIN_LEASE_SECONDS
from pathwatch.server.notify.notifier import DRAIN_SECONDS

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
GOOD: Mapping[str, Any] = {"image": {"repository": "registry.example.org/pathwatch"}, "insecure": True}
SIDECAR: Mapping[str, Any] = {**GOOD, "mode": "sidecar", "persistence": {"enabled": False}}
SHARDS: Mapping[str, Any] = {
    **GOOD,
    "replicas": 3,
    "redis": {"url": "redis://h"},
    "networkPolicy": {"egress": [{"to": [{"podSelector": {}}]}]},
}
RELAY: Mapping[str, Any] = {
    **GOOD,
    "mode": "relay",
    "relay": {"upstream": "dns:///watch-headless.pathwatch.svc:50051"},
    "networkPolicy": SHARDS["networkPolicy"],
}
SIDECAR_RELAY: Mapping[str, Any] = {**GOOD, "mode": "sidecar", "relay": RELAY["relay"]}
OTLP_PUSH_SECONDS = 5
"""Longest wait of a stop for the last push (docs/operations.md)."""


def with_relay(values: Mapping[str, Any] = RELAY, **relay: object) -> Mapping[str, Any]:
    """With that said of the relay besides."""
    return {**values, "relay": {**values["relay"], **relay}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "image.repository is empty"),
        ({**GOOD, "insecure": False}, "would carry plaintext between pods: set tls.enabled=true"),
        ({**GOOD, "replica": 1}, "additional properties 'replica' not allowed"),
        ({**GOOD, "image": {"repository": "r", "tags": "1"}}, "additional properties 'tags' not allowed"),
        ({**GOOD, "image": {"repository": "r", "digest": "sha256:12"}}, "at '/image/digest'"),
        ({**GOOD, "mode": "shard"}, "value must be one of 'service', 'relay', 'sidecar'"),
        ({**GOOD, "replicas": 2}, "replicas is 2: several pods share their runs in a Redis"),
        ({**SHARDS, "persistence": {"existingClaim": "c"}}, "persistence.existingClaim is one claim"),
        (
            {**SHARDS, "extraEnv": [{"name": "PATHWATCH_SHARD", "value": "all:50051"}]},
            "extraEnv sets PATHWATCH_SHARD: the chart does",
        ),
        ({**SHARDS, "server": {"leaseSeconds": 1}}, "at '/server/leaseSeconds': minimum"),
        ({**SIDECAR, "replicas": 2}, "replicas is 2: mode sidecar has no number of its own"),
        ({**GOOD, "replicas": -1}, "at '/replicas': minimum"),
        ({**GOOD, "tls": {"enabled": True, "existingSecret": "s"}}, "tls.enabled and insecure contradict"),
        ({**GOOD, "insecure": False, "tls": {"enabled": True}}, "tls.enabled needs a certificate"),
        ({**GOOD, "tls": {"clientCaSecret": "s"}}, "of no use without tls.enabled=true"),
        (
            {**GOOD, "insecure": False, "tls": {"enabled": True, "certManager": {"enabled": True}}},
            "tls.certManager.issuer.name is empty",
        ),
        (
            {
                **GOOD,
                "insecure": False,
                "tls": {
                    "enabled": True,
                    "existingSecret": "s",
                    "certManager": {"enabled": True, "issuer": {"name": "i"}},
                },
            },
            "both given; choose one",
        ),
        (
            {**GOOD, "server": {"limits": {"window_byte": 1}}},
            "additional properties 'window_byte' not allowed",
        ),
        ({**GOOD, "server": {"limits": {"window_bytes": "1GB"}}}, "at '/server/limits/window_bytes'"),
        (
            {**GOOD, "server": {"limits": {"runs": "10"}}},
            "at '/server/limits/runs': got string, want integer",
        ),
        ({**GOOD, "server": {"publicUrl": "pathwatch.example.org"}}, "at '/server/publicUrl'"),
        ({**GOOD, "server": {"logLevel": "trace"}}, "at '/server/logLevel'"),
        ({**GOOD, "persistence": {"accessMode": "ReadWriteMany"}}, "at '/persistence/accessMode'"),
        ({**GOOD, "persistence": {"size": "10GB"}}, "at '/persistence/size'"),
        ({**GOOD, "resources": {"limits": {"memory": None}}}, "missing property 'memory'"),
        ({**GOOD, "runAsUser": 0}, "at '/runAsUser': minimum"),
        ({**GOOD, "terminationGracePeriodSeconds": 5}, "at '/terminationGracePeriodSeconds': minimum"),
        ({**GOOD, "podDisruptionBudget": {"maxUnavailable": 2}}, "at '/podDisruptionBudget/maxUnavailable'"),
        (
            {**GOOD, "networkPolicy": {"grpcFrom": [{"podselector": {}}]}},
            "additional properties 'podselector' not allowed",
        ),
        ({**GOOD, "networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}}, "missing property 'to'"),
        ({**GOOD, "webhooks": {"existingSecret": "w"}}, "networkPolicy.egress is empty"),
        ({**GOOD, "redis": {"url": "redis://h"}}, "networkPolicy.egress is empty"),
        ({**GOOD, "redis": {"url": "redis://u:secret@h"}}, "at '/redis/url'"),
        ({**GOOD, "redis": {"url": "http://h"}}, "at '/redis/url'"),
        ({**GOOD, "redis": {"caSecret": "s"}}, "of no use without redis.url"),
        ({**GOOD, "server": {"otlp": {"endpoint": "http://c:4318"}}}, "networkPolicy.egress is empty"),
        ({**GOOD, "extraEnv": [{"name": "A"}]}, "at '/extraEnv/0'"),
        (
            {**GOOD, "monitoring": {"runbooks": "https://wiki.example.org/runbooks"}},
            "at '/monitoring/runbooks'",
        ),
        (
            {
                **GOOD,
                "httpTokens": {"existingSecret": "t"},
                "monitoring": {"scrape": {"enabled": True}},
            },
            "monitoring.scrape.tokenSecret is empty",
        ),
        ({**SIDECAR, "insecure": False}, "mode sidecar: metrics and status page are plaintext"),
        ({**SIDECAR, "persistence": {"enabled": True}}, "mode sidecar: the job's pod brings no claim"),
        (
            {**SIDECAR, "insecure": False, "tls": {"enabled": True, "existingSecret": "s"}},
            "tls.enabled is for modes service and relay",
        ),
        ({**GOOD, "mode": "relay"}, "relay.upstream is empty: name the service"),
        ({**GOOD, "relay": {"upstream": "h:1"}}, "relay.upstream is for modes relay and sidecar"),
        ({**GOOD, "relay": {"tokenSecret": "s"}}, "of no use without relay.upstream"),
        ({**GOOD, "relay": {"hostPort": 50051}}, "relay.hostPort is for mode relay: mode service has no pod"),
        (with_relay(upstream="h"), "at '/relay/upstream'"),
        (with_relay(upstream="file:///endpoints"), "at '/relay/upstream'"),
        (with_relay(insecure=True, caSecret="s"), "relay.insecure is plaintext to the upstream"),
        (with_relay(hostPort=70000), "at '/relay/hostPort': maximum"),
        ({**RELAY, "insecure": False}, "mode relay would carry plaintext between pods"),
        ({**RELAY, "networkPolicy": {}}, "networkPolicy.egress is empty"),
        ({**RELAY, "redis": {"url": "redis://h"}}, "a relay keeps nothing and tells nobody"),
        ({**RELAY, "webhooks": {"existingSecret": "w"}}, "a relay keeps nothing and tells nobody"),
        (
            {**RELAY, "server": {"otlp": {"endpoint": "http://c:4318"}}},
            "a relay keeps nothing and tells nobody",
        ),
        ({**RELAY, "persistence": {"existingClaim": "c"}}, "a relay keeps nothing and tells nobody"),
        (
            {**RELAY, "service": {"type": "LoadBalancer"}},
            "service.type is LoadBalancer: a relay is",
        ),
        (
            {**RELAY, "replicas": 3},
            "mode relay has no number of its own; there is one on each node",
        ),
        (with_relay(SIDECAR_RELAY, hostPort=1), "relay.hostPort is for mode relay: mode sidecar has no pod"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        rendered(values)
    assert message in str(refused.value)


@pytest.mark.parametrize("values", [GOOD, SIDECAR, SHARDS, RELAY, SIDECAR_RELAY])
def test_the_rest_goes(values: Mapping[str, Any]) -> None:
    """What the refusals above differ from by one thing."""
    assert rendered(values)


def objects(schema: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All schemas below that are of objects, by where they are."""
    if schema.get("type") == "object":
        yield where, schema
    for key in ("properties", "definitions"):
        for name, below in schema.get(key, {}).items():
            yield from objects(below, f"{where}.{name}")
    if isinstance(schema.get("items"), Mapping):
        yield from objects(schema["items"], f"{where}[]")


def test_no_object_takes_names_that_it_does_not_know() -> None:
    # Helm itself gives charts that others depend on `global`.
    left = dict(objects(SCHEMA))
    assert left.pop(".global") is not None
    for where, schema in left.items():
        assert schema["additionalProperties"] is False or schema["additionalProperties"] == {
            "type": "string"
        }, where


def names_of(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("properties", {}))


def test_all_values_have_defaults_and_words() -> None:
    def compare(schema: Mapping[str, Any], values: Mapping[str, Any], where: str) -> None:
        # What a resource or a limit is left out of has no default.
        if where not in (".resources.requests", ".resources.limits", ".server.limits"):
            assert names_of(schema) - {"global"} == set(values), where
        for name, below in schema["properties"].items():
            if "properties" in below:
                compare(below, values[name], f"{where}.{name}")
            else:
                assert below["description"], f"{where}.{name}"

    compare(SCHEMA, DEFAULTS, "")


def test_the_limits_are_those_of_the_server() -> None:
    assert names_of(SCHEMA["properties"]["server"]["properties"]["limits"]) == set(meanings())


def test_every_limit_reaches_the_server_as_it_was_said() -> None:
    """Large numbers too, which Helm takes for floats."""
    given = {name: getattr(Limits(), name) for name in meanings()}
    (config,) = (m for m in rendered({**GOOD, "server": {"limits": given}}) if m["kind"] == "ConfigMap")
    assert yaml.safe_load(config["data"]["serve.yaml"])["limits"] == given


def test_leases_last_as_long_as_the_server_takes_them() -> None:
    schema = SCHEMA["properties"]["server"]["properties"]["leaseSeconds"]
    assert (schema["minimum"], schema["maximum"]) == (MIN_LEASE_SECONDS, MAX_LEASE_SECONDS)
    assert DEFAULTS["server"]["leaseSeconds"] == ServerConfig.__dataclass_fields__["lease_seconds"].default


def test_a_stop_is_given_the_time_that_it_may_take() -> None:
    least = SCHEMA["properties"]["terminationGracePeriodSeconds"]["minimum"]
    draining = ServerConfig.__dataclass_fields__["drain_seconds"].default + DRAIN_SECONDS + OTLP_PUSH_SECONDS
    assert least >= 2 * draining
    assert DEFAULTS["terminationGracePeriodSeconds"] >= least


def test_what_is_written_by_generate_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "helm" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [path for path, text in generate.generated().items() if path.read_text() != text]
    assert stale == [], "run: python helm/generate.py"
