"""Who reaches whom: services, ports, the network policy, the certificate's names, the disruption budget."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from charts import (
    RELAYS,
    SERVICES,
    Manifest,
    is_selected,
    of_kind,
    pods,
    rendered,
    the,
    the_container,
    values_of,
)


@pytest.fixture(params=[*SERVICES, *RELAYS])
def any_release(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each values file whose pods are the chart's own."""
    return rendered(values_of(request.param))


@pytest.fixture(params=SERVICES)
def service_release(request: pytest.FixtureRequest) -> list[Manifest]:
    """Of each values file in mode service."""
    return rendered(values_of(request.param))


def labels_of_the_pod(release: list[Manifest]) -> dict[str, str]:
    (pod,) = pods(release)
    labels: dict[str, str] = pod["metadata"]["labels"]
    return labels


def test_whatever_selects_the_pod_selects_it(any_release: list[Manifest]) -> None:
    labels = labels_of_the_pod(any_release)
    selectors: list[dict[str, str]] = [
        *(
            owner["spec"]["selector"]["matchLabels"]
            for kind in ("StatefulSet", "DaemonSet")
            for owner in of_kind(any_release, kind)
        ),
        *(service["spec"]["selector"] for service in of_kind(any_release, "Service")),
        *(m["spec"]["podSelector"]["matchLabels"] for m in of_kind(any_release, "NetworkPolicy")),
        *(m["spec"]["selector"]["matchLabels"] for m in of_kind(any_release, "PodDisruptionBudget")),
    ]
    assert len(selectors) >= 3
    for selector in selectors:
        assert selector
        assert is_selected(labels, selector)


def test_labels_of_the_user_do_not_take_the_pod_from_its_selectors() -> None:
    mine = {"app.kubernetes.io/instance": "other", "team": "x"}
    values = {**values_of("plaintext"), "podLabels": mine}
    with_mine = labels_of_the_pod(rendered(values))
    assert with_mine["team"] == "x"
    assert with_mine["app.kubernetes.io/instance"] == "demo"


def test_two_releases_in_a_namespace_do_not_select_each_others_pods() -> None:
    other = labels_of_the_pod(rendered(values_of("plaintext"), name="other"))
    for service in of_kind(rendered(values_of("plaintext")), "Service"):
        assert not is_selected(other, service["spec"]["selector"])


def test_services_lead_to_ports_of_the_container(any_release: list[Manifest]) -> None:
    (pod,) = pods(any_release)
    ports = {port["name"]: port["containerPort"] for port in the_container(pod)["ports"]}
    config = yaml.safe_load(the(any_release, "ConfigMap", "-config")["data"]["serve.yaml"])
    assert ports == {
        key: int(config[what].rpartition(":")[2]) for key, what in (("grpc", "listen"), ("http", "http"))
    }
    for service in of_kind(any_release, "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} == {"grpc", "http"}


def test_the_headless_service_names_the_pods(service_release: list[Manifest]) -> None:
    stateful = the(service_release, "StatefulSet")
    headless = the(service_release, "Service", "-headless")
    assert stateful["spec"]["serviceName"] == headless["metadata"]["name"]
    assert headless["spec"]["clusterIP"] == "None"
    # Nothing translates its ports.
    assert all(
        port["port"] == {"grpc": 50051, "http": 9464}[port["name"]] for port in headless["spec"]["ports"]
    )


def test_the_client_service_has_the_ports_it_was_given() -> None:
    service = next(m for m in of_kind(rendered(values_of("small")), "Service") if "type" in m["spec"])
    assert service["spec"]["type"] == "LoadBalancer"
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {"grpc": 443, "http": 80}


def opened(policy: Manifest) -> list[tuple[str, Any]]:
    """Each port that is opened, and for whom."""
    return [(port["port"], rule["from"]) for rule in policy["spec"]["ingress"] for port in rule["ports"]]


def test_the_policy_lets_in_what_is_declared_and_nothing_else() -> None:
    values = values_of("tls")
    policy = the(rendered(values), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert opened(policy) == [
        ("grpc", values["networkPolicy"]["grpcFrom"]),
        ("http", values["networkPolicy"]["httpFrom"]),
    ]
    assert policy["spec"]["egress"] == values["networkPolicy"]["egress"]


def test_by_default_the_namespace_comes_in_and_nothing_goes_out() -> None:
    policy = the(rendered(values_of("plaintext")), "NetworkPolicy")
    assert opened(policy) == [("grpc", [{"podSelector": {}}]), ("http", [{"podSelector": {}}])]
    assert policy["spec"]["egress"] == []


def test_empty_lists_open_nothing() -> None:
    """A rule without `from` would open its port to everybody."""
    policy = the(rendered(values_of("existing-claim")), "NetworkPolicy")
    assert policy["spec"]["ingress"] == []
    assert policy["spec"]["egress"] == []


def test_a_policy_that_was_not_asked_for_is_not_there() -> None:
    assert of_kind(rendered(values_of("small")), "NetworkPolicy") == []


def test_a_drain_of_the_node_moves_the_pod_or_waits() -> None:
    assert the(rendered(values_of("plaintext")), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert the(rendered(values_of("existing-claim")), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 0


def test_the_certificate_names_what_clients_are_told() -> None:
    release = rendered(values_of("cert-manager"))
    certificate = the(release, "Certificate")
    (pod,) = pods(release)
    mounted = {v["name"]: v["secret"]["secretName"] for v in pod["spec"]["volumes"] if "secret" in v}
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    assert certificate["spec"] == {
        "secretName": mounted["pathwatch-tls"],
        "duration": "2160h",
        "renewBefore": "720h",
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "usages": ["digital signature", "server auth"],
        "issuerRef": {"name": "cluster", "kind": "ClusterIssuer", "group": "cert-manager.io"},
        "dnsNames": [
            "watch",
            "watch.research",
            "watch.research.svc",
            "watch.research.svc.cluster.local",
            "watch-headless.research.svc",
            "watch-headless.research.svc.cluster.local",
            "*.watch-headless.research.svc",
            "*.watch-headless.research.svc.cluster.local",
            "pathwatch.example.org",
        ],
    }
