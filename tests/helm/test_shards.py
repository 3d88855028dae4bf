"""Several pods of one release: what each is called, where they run, what clients are told."""

from __future__ import annotations

from fnmatch import fnmatchcase

import helm_python
import pytest
import yaml
from charts import CHART, SERVICES, is_selected, pods, rendered, the, values_of
from mounting import environment

SHARDED = [name for name in SERVICES if values_of(name).get("replicas", 1) > 1]


@pytest.mark.parametrize("name", SHARDED)
def test_a_shard_is_called_what_the_headless_service_and_the_certificate_call_its_pod(name: str) -> None:
    release = rendered(values_of(name))
    stateful = the(release, "StatefulSet")
    service = the(release, "Service", "-headless")["metadata"]["name"]
    assert stateful["spec"]["serviceName"] == service
    assert stateful["spec"]["replicas"] == 3
    names = the(release, "Certificate")["spec"]["dnsNames"]
    config = yaml.safe_load(the(release, "ConfigMap", "-config")["data"]["serve.yaml"])
    for number in range(3):
        pod = f"{stateful['metadata']['name']}-{number}"
        said = environment(stateful["spec"]["template"], pod)
        host, _, port = said["PATHWATCH_SHARD"].rpartition(":")
        assert host == f"{pod}.{service}.research.svc"
        assert port == config["listen"].rpartition(":")[2]
        assert any(fnmatchcase(host, pattern) for pattern in names)
        # What was asked for besides is not lost.
        assert said["OTEL_RESOURCE_ATTRIBUTES"] == "k8s.cluster.name=west"
    assert config["lease_seconds"] == 6


def test_a_single_pod_over_redis_is_a_shard_which_others_may_join() -> None:
    release = rendered(values_of("redis"))
    (pod,) = pods(release)
    assert environment(pod, "demo-0")["PATHWATCH_SHARD"].startswith("demo-0.")
    assert "lease_seconds" in the(release, "ConfigMap", "-config")["data"]["serve.yaml"]


def test_a_pod_with_its_own_volume_is_no_shard() -> None:
    release = rendered(values_of("tls"))
    (pod,) = pods(release)
    assert "PATHWATCH_SHARD" not in environment(pod, "demo-0")
    assert "lease_seconds" not in the(release, "ConfigMap", "-config")["data"]["serve.yaml"]
    assert "topologySpreadConstraints" not in pod["spec"]


def test_more_pods_are_an_upgrade_that_kubernetes_takes() -> None:
    """Of a StatefulSet, nothing but its replicas, its template and how it is updated may change."""

    def fixed(replicas: int) -> dict[str, object]:
        spec = the(rendered({**values_of("shards"), "replicas": replicas}), "StatefulSet")["spec"]
        return {name: value for name, value in spec.items() if name not in ("replicas", "template")}

    assert fixed(3) == fixed(1) == fixed(0)
    assert fixed(3)["podManagementPolicy"] == "Parallel"


def test_shards_are_spread_and_leave_one_by_one() -> None:
    release = rendered(values_of("shards"))
    (pod,) = pods(release)
    spread = pod["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for each in spread:
        assert is_selected(pod["metadata"]["labels"], each["labelSelector"]["matchLabels"])
        # A cluster of one node runs all of them.
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
    assert the(release, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_an_owner_is_found_by_its_name_ready_or_not() -> None:
    assert the(rendered(values_of("shards")), "Service", "-headless")["spec"]["publishNotReadyAddresses"]


def notes(name: str) -> str:
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render(values_of(name), name="demo", namespace="research")
    return texts["pathwatch/templates/NOTES.txt"]


def test_clients_are_told_of_all_shards_by_a_name_in_the_certificate() -> None:
    told = notes("shards")
    name = "watch-headless.research.svc"
    assert f"dns:///{name}:50051 " in told
    assert name in the(rendered(values_of("shards")), "Certificate")["spec"]["dnsNames"]
    assert "NO VOLUME" not in told
    assert "dns:///" not in notes("plaintext")
