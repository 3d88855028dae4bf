"""Short questions to the sidecar; where no answer comes in time, there is none."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.client.logs import QuietLogger
from pathwatch.v1 import run_pb2

_logger = QuietLogger("pathwatch.integrations")

_TIMEOUT = 2.0


class Sidecar:
    """Asks about one run, a fresh connection each time: questions are rare."""

    def __init__(self, address: str, credentials: Credentials | None, run: str) -> None:
        self._address = address
        self._credentials = credentials
        self._run = run

    def last_attempt(self) -> int:
        """Newest attempt of which the sidecar has data; -1 = none, or no answer within 2 s."""
        try:
            with self._client() as client:
                run = client.get_run(self._run)
        except Exception as error:  # the other ranks wait for an answer
            if not (isinstance(error, PathwatchError) and error.code is grpc.StatusCode.NOT_FOUND):
                _logger.info("pathwatch cannot ask which attempt of run %r is next: %s", self._run, error)
            return -1
        return run.attempt if run.step >= 0 else run.attempt - 1

    def ranking(self, group: str | None = None) -> Sequence[run_pb2.Checkpoint] | None:
        """Registered checkpoints, best first, overall or for a group; None = no answer within 2 s."""
        try:
            with self._client() as client:
                return [place.checkpoint for place in client.rank_checkpoints(self._run, group=group or "")]
        except PathwatchError as error:
            _logger.info("pathwatch cannot ask for the best checkpoint: %s", error)
            return None

    def _client(self) -> Client:
        return Client(self._address, timeout=_TIMEOUT, credentials=self._credentials)
