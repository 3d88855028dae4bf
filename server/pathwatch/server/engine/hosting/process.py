"""One hosted plug-in: its process, and calls that end in time whatever it does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import Pipe
from typing import Any

from pathwatch.server.engine.hosting.frames import from_frame, to_frame

log = logging.getLogger("pathwatch.server")

LOAD_SECONDS = 30.0
"""A plug-in that takes longer to be loaded is cut off."""
CALL_SECONDS = 30.0
"""A plug-in that takes longer for one answer is cut off."""
MAX_FRAME_BYTES = 256 << 20
"""Largest answer that is read."""


class HostedError(Exception):
    """A plug-in gave no answer; the text says which and why."""


class CutOffError(HostedError):
    """Its process is no more: it took too long, crashed or ended itself, and all it remembered is gone."""


class PluginProcess:
    """A process that holds one plug-in. Called by one thread at a time; `close` may come from any other."""

    def __init__(self, kind: str, name: str, options: dict[str, str]) -> None:
        """Starts the process and loads the plug-in. Raises HostedError."""
        self._name = name
        self._ended: str | None = None
        self._closing = threading.Lock()
        self._talking = threading.Lock()
        self._connection, theirs = Pipe()
        # Ends with this process, however it ends, and with it the plug-in's process, hanging or not.
        lifeline, life = os.pipe()
        self._life = os.fdopen(life, "wb")
        module = "pathwatch.server.engine.hosting"
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [sys.executable, "-m", module, str(theirs.fileno()), str(lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _is_open(sys.stderr) else subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # Of its own, so that it can be ended with all it has started, and Ctrl-C does not reach it.
                start_new_session=True,
            )
        except OSError as error:
            self._connection.close()
            self._life.close()
            raise HostedError(f"no process can be started for the plug-in {name!r}: {error}") from error
        finally:
            theirs.close()
            os.close(lifeline)
        try:
            self.call("load", kind=kind, name=name, options=options)
        except HostedError:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether it will never answer again."""
        return self._ended is not None

    def call(self, do: str, **arguments: Any) -> Any:
        """What the plug-in answers. Raises HostedError, CutOffError when it will never answer again."""
        if self._ended is not None:
            raise CutOffError(self._ended)
        seconds = LOAD_SECONDS if do == "load" else CALL_SECONDS
        late = threading.Event()
        timer = threading.Timer(seconds, self._cut_off, (late,))
        timer.daemon = True
        timer.start()
        try:
            frame = to_frame({"do": do, **arguments})
            with self._talking:
                self._connection.send_bytes(frame)
                frame = self._connection.recv_bytes(MAX_FRAME_BYTES)
            answer = from_frame(frame)
        except (EOFError, OSError) as error:
            raise CutOffError(self._end(do, seconds if late.is_set() else None)) from error
        finally:
            timer.cancel()
        if "error" in answer:
            if answer["traceback"]:
                log.error("the plug-in %r failed:\n%s", self._name, answer["traceback"])
            raise HostedError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the process, also in the middle of a call."""
        with self._closing:
            if self._ended is None:
                self._ended = f"The plug-in {self._name!r} was closed."
            self._kill()
            self._process.wait()
            with self._talking:  # who is in the midst of a call was woken, and may yet have to read
                self._connection.close()
            self._life.close()

    def _cut_off(self, late: threading.Event) -> None:
        late.set()
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # What it has started may have left its group and hold the other end: only this wakes who waits here.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    def _end(self, do: str, late: float | None) -> str:
        if self._ended is not None:  # closed by us
            return self._ended
        # A crash closes the connection a moment before the process has ended; an answer too large does not.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.poll()
        self.close()
        if late is not None:
            why = f"gave no answer to `{do}` within {late:g} s and was cut off"
        elif code is None:
            why = f"gave an answer to `{do}` that cannot be read and was cut off"
        elif code < 0:
            why = f"crashed in `{do}` ({signal.Signals(-code).name})"
        else:
            why = f"ended its process in `{do}` (exit code {code})"
        self._ended = f"The plug-in {self._name!r} {why}."
        log.error("%s", self._ended)
        return self._ended


def _is_open(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False
