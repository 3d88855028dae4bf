"""Pods: as few rights as Kubernetes' profile `restricted` asks for, bounded, probed where they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import (
    RELAYS,
    SERVICES,
    Manifest,
    containers,
    distributed_example,
    pods,
    rendered,
    rendered_example,
    the,
    the_container,
    values_of,
)


@pytest.fixture(params=[*SERVICES, *RELAYS, "example", "distributed example"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    """Of each values file that makes one, and of the examples."""
    release = {
        "example": lambda: rendered_example(tmp_path),
        "distributed example": distributed_example,
    }.get(request.param, lambda: rendered(values_of(request.param)))()
    (found,) = pods(release)
    return found


def test_nothing_runs_as_root_or_could_become_it(pod: Manifest) -> None:
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["spec"]["securityContext"]["runAsUser"] > 0
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        assert shared not in pod["spec"]
    assert not any("hostPath" in volume for volume in pod["spec"]["volumes"])
    for container in containers(pod):
        rights = container["securityContext"]
        assert rights.get("runAsUser", 1) > 0
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True


def test_every_container_is_bounded(pod: Manifest) -> None:
    for container in containers(pod):
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_the_environment_is_ours_alone(pod: Manifest) -> None:
    """Links to services of the namespace are called PATHWATCH_… as well, where one is named pathwatch."""
    assert pod["spec"]["enableServiceLinks"] is False


def test_every_mount_of_the_example_has_its_volume(tmp_path: Path) -> None:
    (pod,) = pods(rendered_example(tmp_path))
    volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
    assert len(set(volumes)) == len(volumes)
    mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
    assert mounted == set(volumes)


@pytest.mark.parametrize("name", [*SERVICES, *RELAYS])
def test_every_mount_has_its_volume_or_its_claim(name: str) -> None:
    (owner,) = (m["spec"] for m in rendered(values_of(name)) if m["kind"] in ("StatefulSet", "DaemonSet"))
    volumes = [volume["name"] for volume in owner["template"]["spec"]["volumes"]]
    claims = [claim["metadata"]["name"] for claim in owner.get("volumeClaimTemplates", [])]
    mounted = [mount["name"] for mount in the_container(owner["template"])["volumeMounts"]]
    assert sorted(mounted) == sorted([*volumes, *claims])


def test_secrets_are_read_by_nobody_else() -> None:
    for pod in pods(rendered(values_of("tls"))):
        group = pod["spec"]["securityContext"]["fsGroup"]
        assert group == the_container(pod)["securityContext"]["runAsGroup"]
        secrets = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert len(secrets) == 5
        assert {secret["defaultMode"] for secret in secrets} == {0o440}


def probes(pod: Manifest) -> dict[str, Any]:
    return {name: value for name, value in the_container(pod).items() if name.endswith("Probe")}


def test_a_service_is_probed_by_grpc() -> None:
    (pod,) = pods(rendered(values_of("plaintext")))
    assert probes(pod).keys() == {"startupProbe", "readinessProbe", "livenessProbe"}
    assert all(probe["grpc"] == {"port": 50051} for probe in probes(pod).values())


def test_with_tls_which_kubelets_do_not_speak_with_grpc_it_is_probed_by_https() -> None:
    (pod,) = pods(rendered(values_of("tls")))
    expected = {"path": "/healthz", "port": "http", "scheme": "HTTPS"}
    assert all(probe["httpGet"] == expected for probe in probes(pod).values())


def test_a_start_has_the_time_it_is_given() -> None:
    (pod,) = pods(rendered({**values_of("plaintext"), "startupSeconds": 1201}))
    startup = probes(pod)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1201


def test_the_example_is_a_native_sidecar(tmp_path: Path) -> None:
    """Waited for before the job, ended after it: the Job is complete when the training is."""
    manifests = rendered_example(tmp_path)
    job = the(manifests, "Job")
    (sidecar,) = job["spec"]["template"]["spec"]["initContainers"]
    assert sidecar["name"] == "pathwatch"
    assert sidecar["restartPolicy"] == "Always"
    # The kubelet does not reach the 127.0.0.1 that it listens on for gRPC.
    assert sidecar["startupProbe"]["httpGet"]["port"] == "http"
    config = yaml.safe_load(the(manifests, "ConfigMap")["data"]["serve.yaml"])
    (training,) = job["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in training["env"]}
    assert environment["PATHWATCH_SERVER"] == config["listen"] == "127.0.0.1:50051"
    assert [port["name"] for port in sidecar["ports"]] == ["http"]


def test_pods_are_made_anew_when_the_configuration_changes() -> None:
    def checksum(**server: object) -> str:
        (pod,) = pods(rendered({**values_of("plaintext"), "server": server}))
        return str(pod["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum()
    assert checksum() != checksum(snapshotMinutes=5)


def test_an_image_is_named_by_digest_before_tag_before_version() -> None:
    def image(**given: str) -> str:
        values = {"image": {"repository": "r/p", **given}, "insecure": True}
        (pod,) = pods(rendered(values))
        return str(the_container(pod)["image"])

    digest = f"sha256:{'0' * 64}"
    assert image() == "r/p:0.1.0"
    assert image(tag="2") == "r/p:2"
    assert image(tag="2", digest=digest) == f"r/p@{digest}"
