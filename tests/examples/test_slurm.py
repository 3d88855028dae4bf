"""examples/slurm with a real server and a recorded run; stand-ins for Slurm's commands do what it would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ports
import pytest
import slurm_training
from redis_process import RedisProcess
from scripted_server import ScriptedServer, scripted_server

from pathwatch.client import Client, PathwatchError
from pathwatch.v1 import run_pb2

EXAMPLES = Path(__file__).parents[2] / "examples" / "slurm"
OVERFITS, STEPS = "text_deferred_bS_s2", 41
FIRST = 3
"""Steps after which training waits, so that it is not over before its server goes."""
COMMANDS = {
    "pathwatch": f'exec {sys.executable} -m pathwatch.server.cli "$@"',
    "srun": 'echo $$ > srun.pid; exec "$@"',
    "scancel": 'echo "scancel $*" >> slurm.log; kill "-${1#--signal=}" "$(cat srun.pid)"',
    "scontrol": 'echo "scontrol $*" >> slurm.log',
    "sbatch": 'echo "sbatch $*" >> slurm.log',
}

pytestmark = pytest.mark.slow


class Cluster:
    """A folder that all nodes share, and the environment of a job with id 17."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = folder / "endpoint"
        self._started: list[subprocess.Popen[str]] = []
        (folder / "bin").mkdir()
        for name, does in COMMANDS.items():
            self.put(name, does)
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(slurm_training.__file__).parent),
            "SLURM_JOB_ID": "17",
            "SLURM_SUBMIT_DIR": str(folder),
            "PATHWATCH_SCRIPTS": str(EXAMPLES),
            "PATHWATCH_DATA": str(folder / "data"),
            "PATHWATCH_ENDPOINT": str(self.endpoint),
            "PATHWATCH_SERVER": f"file://{self.endpoint}",
            "PATHWATCH_HOST": "127.0.0.1",
            "PATHWATCH_PORT": str(ports.lasting_port()),
            "PATHWATCH_HTTP": "127.0.0.1:0",
            "RETRY_SECONDS": "0.2",
            "STOP_GRACE_SECONDS": "0.1",
        }

    def put(self, name: str, does: str) -> None:
        """A command of that name, in place of the one that was there."""
        command = self.folder / "bin" / name
        command.write_text(f"#!/bin/bash\n{does}\n")
        command.chmod(0o755)

    def start(self, script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", EXAMPLES / script, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def train(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        return self.start("train.sbatch", sys.executable, slurm_training.__file__, *arguments, **environment)

    def log(self) -> list[str]:
        """What Slurm was told."""
        log = self.folder / "slurm.log"
        return log.read_text().splitlines() if log.exists() else []

    def close(self) -> None:
        for process in self._started:
            # Each is a session of its own, with all that it started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as said:
        yield said


def eventually(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what it printed."""
    said, _ = process.communicate(timeout=150)
    return process.returncode, said


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.iterdir()))
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    checker = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert checker is not None
    done = subprocess.run([checker, EXAMPLES / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_job_is_requeued_as_the_next_attempt_and_ended_when_the_run_is_to_stop(cluster: Cluster) -> None:
    server = cluster.start("serve.sbatch")
    eventually(cluster.endpoint.exists)
    address = cluster.endpoint.read_text().strip()
    assert address == f"127.0.0.1:{cluster.environment['PATHWATCH_PORT']}"

    first = cluster.train(OVERFITS, 3)
    eventually((cluster.folder / "trained").exists)
    os.kill(first.pid, signal.SIGUSR1)  # as Slurm does before the time is over
    code, said = ends(first)
    assert code == 0, said
    assert (cluster.folder / "saved").read_text() == "attempt 0"
    assert cluster.log() == ["scancel --signal=USR1 17", "scontrol requeue 17"]

    code, said = ends(cluster.train(OVERFITS, STEPS, SLURM_RESTART_COUNT="1"))
    assert code == 0, said
    assert "moe-17: stop reached at step " in said
    assert (cluster.folder / "saved").read_text() == "attempt 1"
    assert cluster.log()[2:] == ["scancel --signal=USR1 17"]
    with Client(address) as client:
        run = client.get_run("moe-17")
    assert (run.attempt, run.state) == (1, run_pb2.RUN_STATE_FINISHED)

    code, said = ends(cluster.train(OVERFITS, STEPS, SLURM_RESTART_COUNT="2"))
    assert (code, said) == (0, "pathwatch has stopped moe-17 before: nothing to do\n")

    server.send_signal(signal.SIGTERM)
    assert ends(server)[0] == 0


def judged(address: str, run: str) -> int:
    """Up to which step; -1 where nothing is."""
    try:
        with Client(address) as client:
            return client.get_run(run).closed_step
    except PathwatchError:
        return -1


def test_training_follows_a_server_that_starts_later_and_again_elsewhere(cluster: Cluster) -> None:
    job = cluster.train(OVERFITS, STEPS, FIRST)
    assert job.stdout is not None
    assert f"file of servers {cluster.endpoint}: No such file" in job.stdout.readline()
    first = cluster.start("serve.sbatch")
    eventually(cluster.endpoint.exists)
    address = cluster.endpoint.read_text().strip()
    eventually(lambda: judged(address, "moe-17") >= 0)
    first.send_signal(signal.SIGTERM)
    assert ends(first)[0] == 0
    (cluster.folder / "go_on").touch()
    cluster.start("serve.sbatch", PATHWATCH_PORT=str(ports.lasting_port()))
    code, said = ends(job)
    assert code == 0, said
    assert "moe-17: stop reached at step " in said
    assert cluster.endpoint.read_text().strip() != address


def test_the_runs_of_a_shard_that_is_gone_are_served_by_another(cluster: Cluster) -> None:
    redis = RedisProcess(cluster.folder / "redis", appendfsync="no")
    try:
        addresses = [f"127.0.0.1:{ports.lasting_port()}" for _ in range(2)]
        shards = {
            address: cluster.start(
                "serve.sbatch",
                PATHWATCH_STORE=redis.url,
                PATHWATCH_LEASE_SECONDS="2",
                PATHWATCH_PORT=str(int(address.rpartition(":")[2]) - task),
                SLURM_ARRAY_TASK_ID=str(task),
                SLURM_JOB_ID=str(100 + task),
            )
            for task, address in enumerate(addresses)
        }
        eventually(lambda: told(cluster) == sorted(addresses))
        job = cluster.train(OVERFITS, STEPS, FIRST)
        eventually(lambda: judged(",".join(addresses), "moe-17") >= 0)
        with redis.client() as client:
            owner = client.hget("pathwatch:{moe-17}:lease", "owner").decode()
        os.killpg(shards[owner].pid, signal.SIGKILL)
        (cluster.folder / "go_on").touch()
        code, said = ends(job)
        assert code == 0, said
        assert "moe-17: stop reached at step " in said
        (other,) = set(addresses) - {owner}
        with Client(other) as client:
            assert client.get_run("moe-17").state == run_pb2.RUN_STATE_FINISHED
    finally:
        redis.kill()


def told(cluster: Cluster) -> list[str]:
    """Addresses in the file, sorted."""
    return sorted(cluster.endpoint.read_text().split()) if cluster.endpoint.exists() else []


def test_training_does_not_need_the_server(cluster: Cluster) -> None:
    trains = "until [[ -e enough ]]; do sleep 0.05; done; echo trained; exit 7"
    job = cluster.start("train.sbatch", "bash", "-c", trains, PATHWATCH_SERVER="127.0.0.1:1")
    assert job.stdout is not None
    for _ in range(2):  # it is asked again
        assert "no pathwatch server at 127.0.0.1:1" in job.stdout.readline()
    (cluster.folder / "enough").touch()
    code, said = ends(job)
    assert code == 7
    assert "trained" in said
    assert cluster.log() == []


@pytest.mark.parametrize("fails", ["scancel", "scontrol"])
def test_a_controller_that_is_busy_for_a_moment_costs_no_requeue(cluster: Cluster, fails: str) -> None:
    busy = f'echo "{fails} times out" >> slurm.log; exit 1'
    cluster.put(fails, f"[[ -e busy ]] || {{ touch busy; {busy}; }}; {COMMANDS[fails]}")
    trains = "trap 'exit 0' USR1; touch trained; while :; do sleep 0.05; done"
    job = cluster.start("train.sbatch", "bash", "-c", trains, PATHWATCH_SERVER="127.0.0.1:1")
    eventually((cluster.folder / "trained").exists)
    os.kill(job.pid, signal.SIGUSR1)
    code, said = ends(job)
    assert code == 0, said
    told = ["scancel --signal=USR1 17", "scontrol requeue 17"]
    told.insert(0 if fails == "scancel" else 1, f"{fails} times out")
    assert cluster.log() == told


def test_a_job_ends_whose_training_ends_while_the_gate_is_being_started(cluster: Cluster) -> None:
    """The watcher is told between starting the gate and knowing its process: bash is held up there."""
    held_up = cluster.folder / "held_up.sh"
    held_up.write_text(
        "hold() {\n"
        "  case $1 in\n"
        "    'gate=$!') touch held; until [[ -e told ]]; do sleep 0.02; done ;;\n"
        "    'wait \"$watcher\"') touch told ;;\n"
        "  esac\n"
        "}\n"
        "if [[ $0 == *train.sbatch ]]; then set -o functrace; trap 'hold \"$BASH_COMMAND\"' DEBUG; fi\n"
    )
    trains = "until [[ -e held ]]; do sleep 0.02; done"
    job = cluster.start(
        "train.sbatch", "bash", "-c", trains, PATHWATCH_SERVER="127.0.0.1:1", BASH_ENV=str(held_up)
    )
    code, said = ends(job)
    assert code == 0, said
    assert (cluster.folder / "told").exists()
    assert cluster.log() == []


def test_the_server_is_requeued_before_its_time_is_over(cluster: Cluster) -> None:
    server = cluster.start("serve.sbatch")
    eventually(cluster.endpoint.exists)
    os.kill(server.pid, signal.SIGUSR1)
    assert ends(server)[0] == 0
    assert cluster.log() == ["scontrol requeue 17"]


def test_a_server_that_cannot_start_tells_no_address(cluster: Cluster) -> None:
    code, said = ends(cluster.start("serve.sbatch", PATHWATCH_HOST="192.0.2.1"))
    assert code == 2
    assert "--insecure" in said
    assert not cluster.endpoint.exists()


def test_an_evaluation_follows_the_best_checkpoint(cluster: Cluster, scripted: ScriptedServer) -> None:
    """The server is away at first, and comes back at another address."""
    cluster.endpoint.write_text(f"127.0.0.1:{ports.lasting_port()}\n")
    waiting = cluster.start("evaluate.sh", "pair", "evaluate.sbatch")
    assert waiting.stdout is not None
    assert "no pathwatch server" in waiting.stdout.readline()
    scripted.say("CONTINUE", math="GENERALIZED", code="GENERALIZED")
    scripted.ranking = [
        run_pb2.RankedCheckpoint(checkpoint=run_pb2.Checkpoint(step=step, tag=f"out/step {step}"))
        for step in (80, 60)
    ]
    cluster.endpoint.write_text(f"{scripted.address}\n")
    code, said = ends(waiting)
    assert code == 0, said
    assert cluster.log() == ["sbatch evaluate.sbatch out/step 80"]


def test_a_run_that_ends_without_generalizing_is_not_evaluated(
    cluster: Cluster, scripted: ScriptedServer
) -> None:
    cluster.endpoint.write_text(f"{scripted.address}\n")
    scripted.say("CONTINUE", math="MEMORIZED")
    scripted.run.state = run_pb2.RUN_STATE_FINISHED
    code, said = ends(cluster.start("evaluate.sh", "pair", "evaluate.sbatch"))
    assert code == 3, said
    assert cluster.log() == []


def test_a_run_without_a_checkpoint_is_not_evaluated(cluster: Cluster, scripted: ScriptedServer) -> None:
    cluster.endpoint.write_text(f"{scripted.address}\n")
    scripted.say("CONTINUE", math="GENERALIZED")
    code, said = ends(cluster.start("evaluate.sh", "pair", "evaluate.sbatch"))
    assert code == 2, said
    assert "pair has generalized, but has no judged checkpoint with a tag: nothing is submitted" in said
    assert cluster.log() == []


def test_the_gate_ends_when_it_is_told(cluster: Cluster, scripted: ScriptedServer) -> None:
    cluster.endpoint.write_text(f"{scripted.address}\n")
    gate = cluster.start("gate.sh", "pair", "--until", "stop")
    eventually(lambda: scripted.asked)
    gate.send_signal(signal.SIGTERM)
    assert ends(gate)[0] == 143
