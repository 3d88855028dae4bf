"""Scripts of ranks in processes forked from one that has imported what takes long: seconds less for each.

Unlike ranks under torchrun they share the seed of hashes, which a process has from its start: what would
differ between ranks by the order of a set is seen by the examples' tests alone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
# pathwatch first: what it sets for gRPC is read only once.
_IMPORTED = [
    "pathwatch.integrations.pytorch",
    "pathwatch.integrations.deepspeed",
    "deepspeed",
    "transformers.trainer",
    "transformers.models.olmoe.modeling_olmoe",
]


def _run(
    script: str, arguments: Sequence[str], folders: Sequence[str], environment: Mapping[str, str], errors: str
) -> None:
    """The script as `python script arguments…` would run it, to what is done at the interpreter's exit."""
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    np.random.seed()  # else all ranks would draw the same
    sys.argv = [script, *arguments]
    sys.path[:0] = [str(Path(script).parent), *folders]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        # A process of multiprocessing leaves them out.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


class ForkedRank:
    """A script that runs from the start; used like `subprocess.Popen`."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        *,
        folders: Sequence[str],
        environment: Mapping[str, str],
        errors: Path,
    ) -> None:
        """`folders` are imported from after the script's own; `errors` gets what it writes to stderr."""
        self._errors = errors
        with pytest.MonkeyPatch.context() as before:
            # Read when they are imported.
            before.setenv("DS_ACCELERATOR", "cpu")
            before.setenv("OMP_NUM_THREADS", "1")
            _CONTEXT.set_forkserver_preload(_IMPORTED)
            forkserver.ensure_running()
        self._process = _CONTEXT.Process(
            target=_run, args=(str(script), list(arguments), list(folders), dict(environment), str(errors))
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative = the signal that ended it."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for its end; nothing, and what it wrote to stderr. Fails after `timeout` seconds."""
        self._process.join(timeout)
        said = self._errors.read_text(errors="replace") if self._errors.exists() else ""
        assert self.returncode is not None, f"it did not end within {timeout} s: {said[-4000:]}"
        return None, said
