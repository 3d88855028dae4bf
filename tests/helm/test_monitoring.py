"""What the Prometheus Operator and Grafana are given: the rules and dashboards of `pathwatch monitoring`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import Manifest, is_selected, of_kind, pods, rendered, rendered_example, the, values_of

from pathwatch.server.monitoring.kit import Sidecars, kit_files

# What an object's annotation may hold, where appliers keep the object: less than a ConfigMap's megabyte.
MOST_BYTES = 256 << 10


def kit(tmp_path: Path, *, tls: bool, runbooks: str | None) -> dict[str, str]:
    sidecars = Sidecars(targets=["127.0.0.1:9464"], tls=tls)
    return dict(kit_files(tmp_path, sidecars, prometheus_url="http://prometheus", runbooks=runbooks))


CASES = pytest.mark.parametrize(
    ("values", "tls", "runbooks"),
    [("cert-manager", True, "https://wiki.example.org/runbooks/"), ("everything-plain", False, None)],
)


def monitored(name: str) -> list[Manifest]:
    if name == "everything-plain":
        some = {"rules": {"enabled": True}, "dashboards": {"enabled": True}, "scrape": {"enabled": True}}
        return rendered({**values_of("plaintext"), "monitoring": some})
    return rendered(values_of(name))


@CASES
def test_the_rules_are_those_of_the_kit(values: str, tls: bool, runbooks: str | None, tmp_path: Path) -> None:
    rule = the(monitored(values), "PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    files = kit(tmp_path, tls=tls, runbooks=runbooks)
    expected = [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load(files[f"rules/{name}.yaml"])["groups"]
    ]
    assert rule["spec"] == {"groups": expected}


def test_prometheus_reads_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(the(monitored("cert-manager"), "PrometheusRule")["spec"]))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@CASES
def test_the_dashboards_are_those_of_the_kit(
    values: str, tls: bool, runbooks: str | None, tmp_path: Path
) -> None:
    files = kit(tmp_path, tls=tls, runbooks=runbooks)
    release = monitored(values)
    for name in ("run", "fleet"):
        config = the(release, "ConfigMap", f"-dashboard-{name}")
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((file, text),) = config["data"].items()
        assert file == f"pathwatch-{name}.json"
        assert json.loads(text) == json.loads(files[f"grafana/dashboards/{name}.json"])
        assert len(text.encode()) < MOST_BYTES


def scraped(monitor: Manifest) -> dict[str, Any]:
    (endpoint,) = monitor["spec"]["endpoints"]
    assert isinstance(endpoint, dict)
    return endpoint


def test_each_pod_of_a_service_is_scraped_once() -> None:
    release = monitored("cert-manager")
    monitor = the(release, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (service,) = (
        service
        for service in of_kind(release, "Service")
        if is_selected(service["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"])
    )
    endpoint = scraped(monitor)
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "serverName": "watch.research.svc",
        "ca": {"secret": {"name": "watch-tls", "key": "ca.crt"}},
    }
    assert endpoint["tlsConfig"]["serverName"] in the(release, "Certificate")["spec"]["dnsNames"]
    assert endpoint["authorization"] == {"credentials": {"name": "pathwatch-prometheus", "key": "token"}}


def test_plain_metrics_are_scraped_as_such() -> None:
    endpoint = scraped(the(monitored("everything-plain"), "ServiceMonitor"))
    assert endpoint["scheme"] == "http"
    assert endpoint.keys() == {"port", "path", "interval", "scheme", "relabelings"}


def test_alerts_know_every_sidecar_whatever_the_release_is_called() -> None:
    """PathwatchSidecarDown goes by the job's name."""
    for name, kind in (("cert-manager", "ServiceMonitor"), ("sidecar", "PodMonitor")):
        spec = the(rendered(values_of(name), name="x"), kind)["spec"]
        (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
        assert {"targetLabel": "job", "replacement": "pathwatch"} in endpoint["relabelings"]


def test_sidecars_of_jobs_are_scraped_by_pod(tmp_path: Path) -> None:
    monitor = the(rendered(values_of("sidecar")), "PodMonitor")
    (pod,) = pods(rendered_example(tmp_path))
    assert is_selected(pod["metadata"]["labels"], monitor["spec"]["selector"]["matchLabels"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (sidecar,) = pod["spec"]["initContainers"]
    assert endpoint["port"] in {port["name"] for port in sidecar["ports"]}


def test_nothing_is_made_for_operators_unless_asked_for() -> None:
    kinds = {manifest["kind"] for manifest in rendered(values_of("plaintext"))}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate"}
