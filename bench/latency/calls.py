"""How long GetSignal takes, in turn with a unary call of a bare server on the same machine."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

import grpc

from bench.latency.bare import METHOD
from bench.latency.loading import ROOT
from pathwatch.v1 import signal_pb2, signal_pb2_grpc

_INTERVAL = 0.04
"""Seconds between two calls of either kind."""


class Calls:
    """Calls in a thread of its own while entered."""

    def __init__(self, address: str, run: str) -> None:
        self._address = address
        self._run = run
        self._over = threading.Event()
        self.signal: list[float] = []
        """Seconds of each GetSignal."""
        self.bare: list[float] = []
        """Seconds of each call of the bare server."""

    def __enter__(self) -> Calls:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "bench.latency.bare"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        address = self._server.stdout.readline().strip() if self._server.stdout else ""
        self._thread = threading.Thread(target=self._call, args=(address,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._server.communicate()

    def _call(self, bare_address: str) -> None:
        with grpc.insecure_channel(self._address) as ours, grpc.insecure_channel(bare_address) as bare:
            get_signal = signal_pb2_grpc.SignalServiceStub(ours).GetSignal
            request = signal_pb2.GetSignalRequest(run=self._run)
            answer = bare.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
            question = request.SerializeToString()
            for warm_up in (True, False):
                while not self._over.is_set():
                    signal = _timed(lambda: get_signal(request, timeout=60))
                    self._over.wait(_INTERVAL / 2)
                    other = _timed(lambda: answer(question, timeout=60))
                    self._over.wait(_INTERVAL / 2)
                    if warm_up:
                        break
                    self.signal.append(signal)
                    self.bare.append(other)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
