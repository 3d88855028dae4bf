"""The newest signals of many runs, asked seldom; where there is no answer, nothing stops."""

from __future__ import annotations

import os
import time

import grpc

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.client.logs import QuietLogger
from pathwatch.v1 import signal_pb2

_logger = QuietLogger("pathwatch.integrations")

ANSWER_SECONDS = 2.0
"""How long whoever asks may be kept waiting."""
FRESH_SECONDS = 1.0
"""For so long a run is not asked about again."""
REST_SECONDS = 30.0
"""For so long nothing is asked after a question that failed: a frozen server holds up the search so often."""
_OF_ONE_RUN = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)
"""Refusals that may hold for the run alone that was asked for: its name, or a token that is for others."""
STRANGE_SECONDS = 300.0
"""A run that is still unknown so long after it was first asked for is probably named wrongly."""


class Signals:
    """Signals by run. Never raises; can be pickled, as search libraries do with what they are given.

    Each question has a connection of its own: they are rare, and a connection can neither be pickled nor
    outlive a fork.
    """

    def __init__(self, server: str | None = None, credentials: Credentials | None = None) -> None:
        """`server` is as for a client; None = `PATHWATCH_SERVER` of the environment, else `127.0.0.1:50051`.

        `credentials` are those of a client; a token may come from the environment as in training jobs.
        """
        self._server = server or os.environ.get("PATHWATCH_SERVER") or "127.0.0.1:50051"
        self._credentials = credentials
        self._known: dict[str, tuple[float, signal_pb2.Signal | None]] = {}
        self._missed: dict[str, float] = {}
        self._barred: dict[str, float] = {}
        self._resting_until = 0.0
        self._is_away = False

    def newest(self, run: str) -> signal_pb2.Signal | None:
        """What the run should do, as of a second ago at most; None = no such run (yet), or no answer.

        A name that is none, as searches may make them, is answered by None, too.
        """
        if not isinstance(run, str):
            self._bar(run, "its name is no text")
            return None
        now = time.monotonic()
        asked, signal = self._known.get(run, (0.0, None))
        if run in self._known and now < asked + FRESH_SECONDS:
            return signal
        if now < max(self._resting_until, self._barred.get(repr(run), 0.0)):
            return None
        signal = self._ask(run)
        self._known[run] = (time.monotonic(), signal)
        return signal

    def __getstate__(self) -> dict[str, object]:
        # Times of a monotonic clock mean nothing in another process.
        return {"server": self._server, "credentials": self._credentials}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _ask(self, run: str) -> signal_pb2.Signal | None:
        try:
            with self._client() as client:
                return self._answer(client, run)
        except Exception as error:  # a token file that is not text, say: no trial may fail for it
            self._rest(error)
            return None

    def _answer(self, client: Client, run: str) -> signal_pb2.Signal | None:
        """Raises what holds for all runs."""
        signal = None
        try:
            signal = client.get_signal(run)
        except UnicodeEncodeError as error:  # half of a surrogate pair: it cannot be sent
            self._bar(run, error)
            return None
        except PathwatchError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                self._note_missing(run)
            elif error.code in _OF_ONE_RUN:
                self._bar(run, error)
            else:
                raise
        else:
            self._barred.pop(repr(run), None)
        self._answered()
        return signal

    def _client(self) -> Client:
        credentials = Credentials.from_environment(self._credentials)
        return Client(self._server, timeout=ANSWER_SECONDS, credentials=credentials)

    def _answered(self) -> None:
        if self._is_away:
            _logger.info("pathwatch answers again")
        self._is_away = False

    def _rest(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + REST_SECONDS
        if not self._is_away:
            _logger.warning("pathwatch stops nothing for now: %s", error)
        self._is_away = True

    def _bar(self, run: object, why: object) -> None:
        """This run alone is not asked about for a while: the others may still be told to stop."""
        name = repr(run)
        if name not in self._barred:
            _logger.warning("pathwatch does not stop run %s: %s", name, why)
        self._barred[name] = time.monotonic() + REST_SECONDS

    def _note_missing(self, run: str) -> None:
        """A run begins some time after its trial, so that only one that stays away is worth a word."""
        first = self._missed.setdefault(run, time.monotonic())
        if time.monotonic() >= first + STRANGE_SECONDS:
            self._missed[run] = float("inf")
            _logger.warning(
                "the pathwatch server at %s knows no run %r: does its trial send under that name?",
                self._server,
                run,
            )
