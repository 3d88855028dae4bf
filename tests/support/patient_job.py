"""A script of a training job that awaits its sidecar's answers: `python patient_job.py SCRIPT ARGUMENT…`.

A job gives them 2 s, so that it is not held up; a test that asserts on them must not depend on that.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from pathwatch.integrations.observing import sidecar, watch

if __name__ == "__main__":
    sidecar._TIMEOUT = watch._ARRIVES_WITHIN = 60.0
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
