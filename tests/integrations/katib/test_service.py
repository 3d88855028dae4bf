"""Katib's early stopping service: Katib's own bytes, a Kubernetes API over TLS, a trial's course."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import grpc
import kubernetes_validate
import pytest
import trustme
import yaml
from scripted_server import ScriptedServer, scripted_server

from pathwatch.integrations.katib import EarlyStoppingService, Trials, TrialsError
from pathwatch.katib import early_stopping_pb2_grpc as katib_grpc

EXAMPLES = Path(__file__).parents[3] / "examples" / "katib"
DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
"""How Katib's metrics collector finds metrics in a line, where an experiment says nothing else."""
RULE = b"\n\x15" + b"\n\x0epathwatch_stop" + b"\x12\x011" + b"\x18\x01"
"""The reply by the numbers of Katib's api.proto: rules = 1, of each name = 1, value = 2, comparison = 3."""


@dataclass
class Kubernetes:
    """As much of its API as is asked for, and what it was asked."""

    account: Path
    url: str = ""
    status: int = 200
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "namespace").write_text("team-a")
    (tmp_path / "token").write_text("first\n")
    api = Kubernetes(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.asked.append((self.command, self.path, dict(self.headers), body))
            said = b'{"message": "trials.kubeflow.org\\n is forbidden"}'
            self.send_response(api.status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    api.url = f"https://127.0.0.1:{server.server_address[1]}"
    yield api
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(kubernetes: Kubernetes) -> Iterator[grpc.Channel]:
    """What a caller that knows nothing but Katib's API speaks to."""
    server = grpc.server(ThreadPoolExecutor(2))
    trials = Trials(kubernetes.url, kubernetes.account)
    katib_grpc.add_EarlyStoppingServicer_to_server(EarlyStoppingService(trials), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    """Bytes there and back."""
    answer: bytes = channel.unary_unary(f"/api.v1.beta1.EarlyStopping/{method}")(request, timeout=30)
    return answer


def text(number: int, value: str) -> bytes:
    """A field of a message that holds a text, or a message."""
    return bytes([number << 3 | 2, len(value)]) + value.encode()


def test_the_rule_is_that_the_line_is_printed(service: grpc.Channel) -> None:
    experiment = text(1, "moe") + text(2, "\x28\x02")  # name, spec {parallel_trial_count: 2}
    request = text(1, experiment.decode()) + text(3, "katib-db-manager.kubeflow:6789")
    assert call(service, "GetEarlyStoppingRules", request) == RULE


def test_an_experiment_that_asks_for_something_else_does_not_start(service: grpc.Channel) -> None:
    def validate(spec: bytes) -> bytes:
        return call(service, "ValidateEarlyStoppingSettings", text(1, spec.decode()))

    assert validate(text(1, "pathwatch")) == b""
    for spec, why in (
        (text(1, "medianstop"), "algorithmName: 'medianstop' is not 'pathwatch'"),
        (
            text(1, "pathwatch") + text(2, (text(1, "start_step") + text(2, "4")).decode()),
            "algorithmSettings: 'start_step' is unknown",
        ),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            validate(spec)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in refused.value.details()


def test_a_trial_that_was_ended_is_marked(service: grpc.Channel, kubernetes: Kubernetes) -> None:
    assert call(service, "SetTrialStatus", text(1, "moe-8x2k")) == b""
    (kubernetes.account / "token").write_text("second\n")
    call(service, "SetTrialStatus", text(1, "moe-8x2k"))
    method, path, headers, body = kubernetes.asked[0]
    assert (method, path) == ("PATCH", "/apis/kubeflow.org/v1beta1/namespaces/team-a/trials/moe-8x2k/status")
    assert headers["Content-Type"] == "application/json-patch+json"
    assert [asked[2]["Authorization"] for asked in kubernetes.asked] == ["Bearer first", "Bearer second"]
    (operation,) = body
    assert (operation["op"], operation["path"]) == ("add", "/status/conditions/-")
    assert operation["value"].keys() == {
        *("type", "status", "reason", "message", "lastUpdateTime", "lastTransitionTime")
    }
    assert (operation["value"]["type"], operation["value"]["status"]) == ("EarlyStopped", "True")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", operation["value"]["lastTransitionTime"])


def test_a_refusal_of_kubernetes_is_told(service: grpc.Channel, kubernetes: Kubernetes) -> None:
    kubernetes.status = 403
    with pytest.raises(grpc.RpcError) as refused:
        call(service, "SetTrialStatus", text(1, "moe"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "trial moe is not changed: HTTP 403" in refused.value.details()
    assert "\n" not in refused.value.details()


@pytest.mark.parametrize("name", ["", "../../secrets/x", "a/b", "a?x", "A", "-a", "a" * 254])
def test_names_that_no_trial_can_have_are_refused(kubernetes: Kubernetes, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a Kubernetes object"):
        Trials(kubernetes.url, kubernetes.account).mark_early_stopped(name)
    assert kubernetes.asked == []


def test_an_api_that_another_authority_signed_for_gets_no_token(kubernetes: Kubernetes) -> None:
    trustme.CA().cert_pem.write_to_path(kubernetes.account / "ca.crt")
    with pytest.raises(TrialsError, match="trial moe is not changed"):
        Trials(kubernetes.url, kubernetes.account).mark_early_stopped("moe")
    assert kubernetes.asked == []


def test_outside_kubernetes_it_says_so_and_ends() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES")}
    done = subprocess.run(
        [sys.executable, "-m", "pathwatch.integrations.katib", "--listen", "127.0.0.1:0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no pod of Kubernetes" in done.stderr


def test_a_trial_ends_as_katib_ends_it(tmp_path: Path, service: grpc.Channel, kubernetes: Kubernetes) -> None:
    """The collector's part, by hand: follow the log, hold metrics against the rule, end the one child."""
    with scripted_server() as scripted:
        _play_trial(tmp_path, scripted)
    call(service, "SetTrialStatus", text(1, "moe-8x2k"))
    assert len(kubernetes.asked) == 1


def _play_trial(folder: Path, scripted: ScriptedServer) -> None:
    log, bin_folder = folder / "metrics.log", folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "pathwatch").write_text(f'#!/bin/sh\nexec {sys.executable} -m pathwatch.server.cli "$@"\n')
    (bin_folder / "pathwatch").chmod(0o755)
    wrapped = f"{EXAMPLES / 'trial.sh'} sh {folder / 'train.sh'} 1>{log} 2>&1 && echo completed"
    (folder / "train.sh").write_text("while :; do echo loss=0.5; sleep 0.05; done\n")
    log.touch()
    scripted.run.name = "not begun"
    main = subprocess.Popen(
        ["sh", "-c", wrapped],
        env={
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PATHWATCH_SERVER": scripted.address,
            "PATHWATCH_RUN": "pair",
            "RETRY_SECONDS": "0.1",
        },
        start_new_session=True,
    )
    try:
        found = _wait_for_metric(log, "loss")
        assert float(found) == 0.5
        _wait_for(log, "there is no run 'pair'")
        scripted.run.name = "pair"
        scripted.say("STOP", math="GENERALIZED")
        assert float(_wait_for_metric(log, "pathwatch_stop")) == 1
        (child,) = map(int, Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split())
        # The training itself, or it would outlive its trial.
        assert str(folder / "train.sh") in Path(f"/proc/{child}/cmdline").read_text().split("\0")[:2]
        os.kill(child, signal.SIGTERM)
        assert main.wait(60) == 128 + signal.SIGTERM
    finally:
        if main.poll() is None:
            os.killpg(main.pid, signal.SIGKILL)
            main.wait()
    line = next(line for line in log.read_text().splitlines() if "pathwatch_stop=" in line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ pathwatch_stop=1", line)


def _wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _wait_for_metric(log: Path, name: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        # Whole lines: of one that is being written the value may be missing.
        for found, value, *_ in re.findall(DEFAULT_FILTER, log.read_text().rpartition("\n")[0]):
            if found == name:
                return value
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_the_files_of_the_example_name_the_service_and_each_other() -> None:
    from pathwatch.integrations.katib.service import ALGORITHM

    experiment = yaml.safe_load((EXAMPLES / "experiment.yaml").read_text())["spec"]
    config = yaml.safe_load((EXAMPLES / "katib-config.yaml").read_text())["runtime"]["earlyStoppings"]
    assert [entry["algorithmName"] for entry in config] == [experiment["earlyStopping"]["algorithmName"]]
    assert config[0]["algorithmName"] == ALGORITHM
    template = experiment["trialTemplate"]
    used = set(re.findall(r"\$\{trialParameters\.(\w+)\}", json.dumps(template["trialSpec"])))
    assert used == {parameter["name"] for parameter in template["trialParameters"]}
    dockerfile = (EXAMPLES / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m", "pathwatch.integrations.katib"]' in dockerfile


def test_a_trial_of_the_example_is_let_in() -> None:
    """Its server is another pod, to which `pathwatch gate` speaks with TLS alone."""
    trial = yaml.safe_load((EXAMPLES / "experiment.yaml").read_text())["spec"]["trialTemplate"]["trialSpec"]
    kubernetes_validate.validate({**trial, "metadata": {"name": "trial"}}, "1.33", strict=True)
    pod = trial["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in secrets}
    for variable in ("PATHWATCH_TLS_CA", "PATHWATCH_TOKEN_FILE"):
        assert str(Path(environment[variable]).parent) in mounts
