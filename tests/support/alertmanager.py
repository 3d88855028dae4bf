"""A real Alertmanager, alone and without anybody to notify."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

BINARY = "prometheus-alertmanager"


class AlertmanagerProcess:
    """Runs from the start on a free port; a context manager."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which(BINARY)
        assert binary is not None, "apt-get install prometheus-alertmanager"
        folder.mkdir()
        config = folder / "alertmanager.yml"
        config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={config}",
                    f"--storage.path={folder}",
                    "--cluster.listen-address=",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=log,
            )
        self.url = f"http://127.0.0.1:{self._port()}"

    def alerts(self) -> list[dict[str, Any]]:
        """What is active now, by name."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=30) as response:  # noqa: S310
            alerts: list[dict[str, Any]] = json.load(response)
        return sorted(alerts, key=lambda alert: str(alert["labels"]))

    def __enter__(self) -> AlertmanagerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _port(self) -> int:
        deadline = time.monotonic() + 60
        while not (found := re.search(r'"Listening on" address=\S+:(\d+)\n', self._log.read_text())):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)
        return int(found[1])
