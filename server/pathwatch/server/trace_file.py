"""Writing trace v1 (docs/traces.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.traces import Trace


def save_trace(trace: Trace, path: Path) -> None:
    """Writes the trace whole or not at all; `load_trace` gives it back. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            np.savez_compressed(file, allow_pickle=False, **_arrays(trace))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _arrays(trace: Trace) -> dict[str, NDArray[Any]]:
    arrays = {
        "steps": trace.steps_T,
        "groups": np.array(trace.groups),
        "losses": trace.losses_TGN,
        "weights": trace.weights_TGNLK,
        "target_weights": trace.target_weights_TGNLK,
        "targets": trace.targets_GN,
        "visits": trace.visits_TGN,
        "gram_self": trace.gram_self_TLKK,
        "gram_next": trace.gram_next_TLKK,
        "meta": np.array(json.dumps(dict(trace.meta))) if trace.meta else None,
    }
    return {name: array for name, array in arrays.items() if array is not None}
