"""`python bench/window` or `python -m bench.window`: see `command`.

This folder has no `__init__.py`: bench/ is no part of the distribution.
"""

import os
import sys
from pathlib import Path

if not __package__:
    # Run as a script: modules are found from the root of the repository, not from this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy is imported

from bench.window.command import main

if __name__ == "__main__":
    main()
