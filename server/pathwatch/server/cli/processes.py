"""The two processes of the demo, a sidecar and a training job: started, and ended whatever happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

GRACE_SECONDS = 15.0
"""How long a process may take to end when asked to, before it is killed."""


class Sidecar(NamedTuple):
    """Addresses of a running server, HOST:PORT."""

    grpc: str
    http: str


class StartError(RuntimeError):
    """A process did not come up; the message is one line."""


@contextmanager
def sidecar(data: Path, log: Path) -> Iterator[Sidecar]:
    """`pathwatch serve` on free loopback ports; its log goes to `log`."""
    command = [sys.executable, "-m", "pathwatch.server.cli", "serve", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with log.open("wb") as errors, _process(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        first = process.stdout.readline().decode().strip()
        ready = re.fullmatch(r"grpc=(\S+) http=(\S+)", first)
        if ready is None:
            raise StartError(f"the sidecar did not start; see {log}")
        yield Sidecar(grpc=ready[1], http=ready[2])


@contextmanager
def deepspeed_job(
    script: Path, arguments: Sequence[str], *, workers: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The script under DeepSpeed's launcher on this machine's CPU, one thread per worker."""
    launcher = Path(sys.executable).with_name("deepspeed")
    if not launcher.exists():
        raise StartError("DeepSpeed is not installed; the demo needs: pip install 'pathwatch[demo]'")
    command = [str(launcher), "--num_accelerators", str(workers), "--master_port", str(_free_port())]
    environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as output,
        _process(
            [*command, str(script), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            environment=environment,
        ) as process,
    ):
        yield process


@contextmanager
def _process(
    command: Sequence[str], *, stdout: object, stderr: object, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own: Ctrl-C reaches us alone, and we end it with its children."""
    process = subprocess.Popen(  # noqa: S603 (our own command)
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,  # type: ignore[call-overload]
        stderr=stderr,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
