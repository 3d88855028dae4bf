"""Relays: one on each node, or in the pod of a job; who reaches them, and where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from charts import (
    CHART,
    RELAYS,
    ROOT,
    Manifest,
    distributed_example,
    is_selected,
    of_kind,
    pods,
    rendered,
    rendered_example,
    the,
    the_container,
    values_of,
)

UPSTREAM = {"upstream": "dns:///watch-headless.pathwatch.svc:50051", "caSecret": "pathwatch-ca"}


@pytest.fixture(params=RELAYS)
def release(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each values file in mode relay."""
    return rendered(values_of(request.param))


def config_of(release: list[Manifest]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(the(release, "ConfigMap", "-config")["data"]["serve.yaml"])
    return loaded


def test_there_is_one_on_each_node_and_nothing_that_keeps_anything(release: list[Manifest]) -> None:
    kinds = {manifest["kind"] for manifest in release}
    assert "DaemonSet" in kinds
    assert not kinds & {"StatefulSet", "PodDisruptionBudget", "PersistentVolumeClaim"}
    (pod,) = pods(release)
    assert all("emptyDir" in v or "configMap" in v or "secret" in v for v in pod["spec"]["volumes"])
    assert "data" not in config_of(release)


def test_the_service_leads_to_the_relay_of_the_node(release: list[Manifest]) -> None:
    service = the(release, "Service")
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    assert service["spec"]["type"] == "ClusterIP"
    (pod,) = pods(release)
    assert is_selected(pod["metadata"]["labels"], service["spec"]["selector"])
    for certificate in of_kind(release, "Certificate"):
        assert f"{service['metadata']['name']}.research.svc" in certificate["spec"]["dnsNames"]
        # It has no names of pods.
        assert not any("headless" in name for name in certificate["spec"]["dnsNames"])


def test_the_address_of_the_node_leads_there_only_where_it_was_asked_for() -> None:
    def ports(name: str) -> dict[str, int | None]:
        (pod,) = pods(rendered(values_of(name)))
        return {port["name"]: port.get("hostPort") for port in the_container(pod)["ports"]}

    assert ports("relay") == {"grpc": 50051, "http": None}
    assert ports("relay-tls") == {"grpc": None, "http": None}


def test_the_pods_of_a_job_are_told_the_service_of_the_release() -> None:
    service = the(rendered(values_of("relay"), name="relay"), "Service")["metadata"]["name"]
    manifests = distributed_example()
    (pod,) = pods(manifests)
    (container,) = pod["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    address = f"{service}.training.svc:50051"
    assert environment["PATHWATCH_SERVER"] == address
    assert f"PATHWATCH_SERVER={address}`" in (ROOT / "docs" / "kubernetes.md").read_text()
    # The pods know each other by the job's own service.
    assert is_selected(pod["metadata"]["labels"], the(manifests, "Service")["spec"]["selector"])
    assert pod["spec"]["subdomain"] == the(manifests, "Service")["metadata"]["name"]
    assert f"{the(manifests, 'Job')['metadata']['name']}-0.{pod['spec']['subdomain']}:29500" in str(
        container["command"]
    )


def test_what_it_is_told_of_the_upstream() -> None:
    told = {key: value for key, value in config_of(rendered(values_of("relay"))).items() if "upstream" in key}
    assert told == {
        "upstream": "dns:///watch-headless.pathwatch.svc:50051",
        "upstream_ca": "/etc/pathwatch/upstream-ca/ca.crt",
        "upstream_token_file": "/etc/pathwatch/upstream-token/token",
    }
    told = {k: v for k, v in config_of(rendered(values_of("relay-tls"))).items() if "upstream" in k}
    assert told == {
        "upstream": "watch-0.example.org:443,watch-1.example.org:443",
        "upstream_cert": "/etc/pathwatch/upstream-client/tls.crt",
        "upstream_key": "/etc/pathwatch/upstream-client/tls.key",
    }
    plain = {**values_of("relay"), "relay": {"upstream": "watch:50051", "insecure": True}}
    assert config_of(rendered(plain))["upstream_insecure"] is True


def test_the_policy_lets_ranks_in_and_lets_it_out_to_upstream_and_name_server() -> None:
    values = values_of("relay")
    policy = the(rendered(values), "NetworkPolicy")["spec"]
    (pod,) = pods(rendered(values))
    assert is_selected(pod["metadata"]["labels"], policy["podSelector"]["matchLabels"])
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == {"grpc", "http"}
    assert policy["egress"] == values["networkPolicy"]["egress"]
    closed = the(rendered(values_of("relay-tls")), "NetworkPolicy")["spec"]
    assert [port["port"] for rule in closed["ingress"] for port in rule["ports"]] == ["grpc"]


def test_it_is_scraped_by_pod_under_the_name_of_its_node(release: list[Manifest]) -> None:
    monitor = the(release, "PodMonitor")
    (pod,) = pods(release)
    assert is_selected(pod["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in the_container(pod)["ports"]}
    assert {
        "sourceLabels": ["__meta_kubernetes_pod_node_name"],
        "targetLabel": "instance",
    } in endpoint["relabelings"]


def test_the_sidecar_of_a_job_may_be_one(tmp_path: Path) -> None:
    """Nothing of it outlives the pod, so it wants no claim."""
    release = rendered_example(tmp_path, relay=UPSTREAM, persistence={"existingClaim": ""})
    (pod,) = pods(release)
    mounted = {mount["name"] for mount in the_container(pod)["volumeMounts"]}
    assert mounted == {"pathwatch-tmp", "pathwatch-config", "pathwatch-upstream-ca"}
    assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]}
    assert not any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"])
    config = config_of(release)
    assert config["listen"] == "127.0.0.1:50051"
    assert config["upstream"] == UPSTREAM["upstream"]


def test_notes_say_how_ranks_reach_it_and_what_stands_open() -> None:
    def notes(values: dict[str, Any]) -> str:
        with helm_python.Chart.load(CHART) as chart:
            texts = chart.render(values, name="demo", namespace="research")
        return texts["pathwatch/templates/NOTES.txt"]

    told = notes(values_of("relay"))
    assert "demo-pathwatch.research.svc:50051 " in told
    assert "HOST_IP:50051 " in told
    assert "dns:///watch-headless.pathwatch.svc:50051" in told
    assert "may do what the token in pathwatch-token may" in told
    assert "NO VOLUME" not in told
    closed = notes(values_of("relay-tls"))
    for word in ("HOST_IP", "PLAINTEXT", "NO TOKENS", "NO NETWORK POLICY"):
        assert word not in closed
