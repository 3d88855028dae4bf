"""A server in a process of its own that can be killed, frozen and started again on the same port and data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ports import lasting_port

SERVE = """
import asyncio, sys
from pathlib import Path
from pathwatch.server.app import serve
from pathwatch.server.config import ServerConfig

def ready(addresses):
    print(addresses.grpc, flush=True)

config = ServerConfig(data=Path(sys.argv[1]), listen=sys.argv[2], http="127.0.0.1:0", store=sys.argv[3])
sys.exit(asyncio.run(serve(config, ready=ready)))
"""


class ServerProcess:
    """Runs from the start. `environment` (PATHWATCH_FAILPOINTS, …) holds for the next start only."""

    def __init__(
        self, data: Path, environment: Mapping[str, str] | None = None, *, store: str = "sqlite"
    ) -> None:
        self._data = data
        self._store = store
        self.address = f"127.0.0.1:{lasting_port()}"
        self.kills = 0
        self.start(environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start and wait until it answers; fails if it dies before."""
        self.launch(environment)
        assert self.wait_started(), "the server did not start"

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start without waiting for it: for a server that is to die before it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self._data), self.address, self._store],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def wait_started(self) -> bool:
        """Wait until a launched server answers; False if it died before."""
        assert self._process.stdout is not None
        address = self._process.stdout.readline().strip()
        self.address = address or self.address
        return bool(address)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative = the signal that killed it."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL, and wait for the end; also of one that has ended already."""
        self._process.kill()
        self.wait()

    def wait(self, timeout: float = 60) -> int:
        """The exit code of a server that ends by itself; negative = the signal that killed it."""
        code = self._process.wait(timeout)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill_and_restart(self) -> None:
        self.kill()
        self.kills += 1
        self.start()
