"""`monitoring`: what it writes is what Prometheus and Grafana take."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from click.testing import Result
from prometheus import PrometheusProcess

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig, TlsFiles

FILES = {
    "prometheus.yml",
    "rules/recording.yaml",
    "rules/alerts.yaml",
    "grafana/provisioning/datasources/pathwatch.yaml",
    "grafana/provisioning/dashboards/pathwatch.yaml",
    "grafana/dashboards/run.json",
    "grafana/dashboards/fleet.json",
}


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def links(folder: Path) -> list[str]:
    """What alerts and panels link to."""
    found = [
        rule["annotations"]["runbook_url"]
        for group in read(folder / "rules/alerts.yaml")["groups"]
        for rule in group["rules"]
    ]
    for board in (folder / "grafana/dashboards").iterdir():
        for item in json.loads(board.read_text())["panels"]:
            for panel in (item, *item.get("panels", [])):
                found += [link["url"] for link in panel.get("links", [])]
    return found


def test_a_kit_for_this_machine(command: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    done = command("monitoring", "--out", folder)
    assert (done.exit_code, done.stderr) == (0, "")
    assert written(folder) == FILES
    assert done.stdout.splitlines() == [
        f"prometheus --config.file={folder}/prometheus.yml",
        f"GF_PATHS_PROVISIONING={folder}/grafana/provisioning grafana server",
    ]
    checked = subprocess.run(
        ["promtool", "check", "config", folder / "prometheus.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "2 rule files found" in checked.stdout
    (scrape,) = read(folder / "prometheus.yml")["scrape_configs"]
    assert scrape == {
        "job_name": "pathwatch",
        "scheme": "http",
        "static_configs": [{"targets": ["127.0.0.1:9464"]}],
    }


def test_grafana_finds_the_dashboards_and_the_data(command: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    command("monitoring", "--out", folder, "--prometheus", "http://prometheus:9090")
    (source,) = read(folder / "grafana/provisioning/datasources/pathwatch.yaml")["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        "http://prometheus:9090",
        True,
    )
    interval = read(folder / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = read(folder / "grafana/provisioning/dashboards/pathwatch.yaml")["providers"]
    boards = [json.loads(path.read_text()) for path in sorted(Path(provider["options"]["path"]).iterdir())]
    assert [board["uid"] for board in boards] == ["pathwatch-fleet", "pathwatch-run"]


@pytest.mark.parametrize(
    ("options", "scheme", "first"),
    [
        ([], "http", None),
        (["--runbooks", "https://wiki/runbooks/"], "http", "https://wiki/runbooks/"),
        (["--tls"], "https", None),
    ],
)
def test_links_lead_to_what_can_be_opened(
    command: Callable[..., Result], tmp_path: Path, options: list[str], scheme: str, first: str | None
) -> None:
    """To runbooks where they are read; without, alerts name the page and panels have no dead links."""
    folder = tmp_path / "kit"
    assert command("monitoring", "--out", folder, *options).exit_code == 0
    found = links(folder)
    assert len(found) > 20
    assert all(link.startswith(first or "docs/runbooks/Pathwatch") for link in found)
    for path in (folder / "grafana/dashboards").iterdir():
        board = json.loads(path.read_text())
        assert any("links" in panel for panel in board["panels"]) is (first is not None)
        variables = {variable["name"]: variable["query"] for variable in board["templating"]["list"]}
        assert variables["scheme"] == scheme


@pytest.mark.slow
def test_prometheus_runs_on_exactly_what_is_written(
    command: Callable[..., Result], tmp_path: Path, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    """With everything a sidecar may ask for: TLS by an authority of one's own, and a token."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    tls = TlsFiles(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    issued.private_key_pem.write_to_path(tls.key)
    tls.key.chmod(0o600)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(tls.cert, append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    made = command("token", "prometheus", "--scope", "read", "--out", tmp_path / "prometheus.token")
    (tmp_path / "tokens.yaml").write_text(made.stdout)
    config = ServerConfig(
        data=tmp_path / "data", tls=tls, http_tls=True, http_tokens=tmp_path / "tokens.yaml"
    )
    with BackgroundServer(config) as server:
        folder = tmp_path / "kit"
        done = command(
            *["monitoring", "--out", folder, "--target", server.http_address],
            *["--tls-ca", tmp_path / "ca.pem", "--token-file", tmp_path / "prometheus.token"],
        )
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / "prometheus.token").read_text().strip() not in "".join(
            (folder / name).read_text() for name in written(folder)
        )
        with PrometheusProcess(
            tmp_path / "prometheus", [server.http_address], config=folder / "prometheus.yml"
        ) as prometheus:
            prometheus.wait_scraped()
            (target,) = prometheus.targets()
            assert (target["health"], target["scrapeUrl"]) == (
                "up",
                f"https://{server.http_address}/metrics",
            )
            eventually(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"})
            assert len(prometheus.rules()) > 20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "sidecar"], "--target: 'sidecar' is not HOST:PORT"),
        (["--runbooks", "https://wiki"], "--runbooks: 'https://wiki' must end with /"),
        (["--token-file", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(
    command: Callable[..., Result], tmp_path: Path, options: list[str], said: str
) -> None:
    done = command("monitoring", "--out", tmp_path / "kit", *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "kit").exists()


def test_nothing_is_written_over(command: Callable[..., Result], tmp_path: Path) -> None:
    mine = tmp_path / "prometheus.yml"
    mine.write_text("# with my changes\n")
    done = command("monitoring", "--out", tmp_path)
    assert done.exit_code == 2
    assert "is not empty; name a new folder" in done.stderr
    assert written(tmp_path) == {"prometheus.yml"}
    assert mine.read_text() == "# with my changes\n"
