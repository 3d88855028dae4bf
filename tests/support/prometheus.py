"""A real Prometheus in a process of its own, on a free port, that scrapes every second."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

WITHIN_SECONDS = 60
JOB = "pathwatch"


class PrometheusProcess:
    """A context manager: answers when entered, gone when left. Rules are evaluated every second."""

    def __init__(
        self,
        folder: Path,
        targets: Sequence[str],
        rules: Sequence[Path] = (),
        tokens: Mapping[str, str] | None = None,
        config: Path | None = None,
    ) -> None:
        """`targets` are HOST:PORT of /metrics; `tokens` their bearer tokens, where they want one.

        A file `config` holds instead of what would be written here; `targets` says what it scrapes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "prometheus.log"
        self._command = [
            "prometheus",
            f"--config.file={config or folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        ]
        written = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path.resolve()) for path in rules],
            "scrape_configs": [
                {
                    "job_name": JOB,
                    "static_configs": [{"targets": [t for t in targets if t not in (tokens or {})]}],
                },
                *(
                    {
                        "job_name": f"{JOB}-{number}",
                        "authorization": {"credentials": token},
                        "static_configs": [{"targets": [target]}],
                    }
                    for number, (target, token) in enumerate((tokens or {}).items())
                ),
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(written))
        self._targets = list(targets)
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        """HOST:PORT of its API."""

    def __enter__(self) -> PrometheusProcess:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self.address = self._eventually("it listens", self._listening)
            self._eventually("it is ready", self._ready)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def query(self, promql: str, time: float | None = None) -> list[dict[str, Any]]:
        """The instant vector: `{"metric": labels, "value": [seconds, text]}` each. Now, without `time`."""
        asked = {"query": promql} | ({} if time is None else {"time": str(time)})
        answer: list[dict[str, Any]] = self.api("query", **asked)["result"]
        return answer

    def query_range(
        self, promql: str, *, start: float, end: float, step: float = 1.0
    ) -> list[dict[str, Any]]:
        """The range vector: `{"metric": labels, "values": [[seconds, text], …]}` each."""
        asked = {"query": promql, "start": str(start), "end": str(end), "step": str(step)}
        answer: list[dict[str, Any]] = self.api("query_range", **asked)["result"]
        return answer

    def targets(self) -> list[dict[str, Any]]:
        """Active targets: `scrapeUrl`, `health`, `lastError` and so on."""
        answer: list[dict[str, Any]] = self.api("targets", state="active")["activeTargets"]
        return answer

    def rules(self) -> list[dict[str, Any]]:
        """Rules of all groups: `name`, `type` (recording or alerting), `health`, `lastError` and so on."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def wait_scraped(self, n: int = 1) -> None:
        """Until every target was scraped `n` times that began after this call."""
        for _ in range(n):
            after = time.time()
            self._eventually("every target is scraped", lambda after=after: self._scraped_since(after))

    def wait_answered(self, promql: str) -> float:
        """Until the query has an answer; the moment at which it had one, seconds since the epoch."""

        def answered() -> float:
            now = time.time()
            return now if self.query(promql, now) else 0.0

        return float(self._eventually(f"an answer to {promql}", answered))

    def api(self, path: str, **asked: str) -> Any:
        """`data` of an answer of /api/v1/PATH; a refusal says why."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {asked}: {error.read().decode()}") from error

    def _scraped_since(self, after: float) -> bool:
        # The time of a sample, unlike that of the target's state, is known only once the sample can be read.
        begun = {row["metric"]["instance"]: float(row["value"][1]) for row in self.query("timestamp(up)")}
        up = {row["metric"]["instance"] for row in self.query("up == 1")}
        return all(target in up and begun.get(target, 0.0) > after for target in self._targets)

    def _listening(self) -> str:
        found = re.search(r'msg="Listening on" address=(\S+)\n', self._log.read_text())
        return found[1] if found else ""

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=30) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            return False

    def _eventually(self, what: str, condition: Callable[[], Any]) -> Any:
        assert self._process is not None
        deadline = time.monotonic() + WITHIN_SECONDS
        while not (value := condition()):
            ended = self._process.poll()
            assert ended is None, f"Prometheus ended with {ended}: {self._log.read_text()}"
            assert time.monotonic() < deadline, f"not within {WITHIN_SECONDS} s: {what}"
            time.sleep(0.05)
        return value

    def _end(self) -> None:
        # Nothing of what it holds is wanted any more; to bring it to disk may take it long.
        assert self._process is not None
        self._process.kill()
        self._process.wait()
