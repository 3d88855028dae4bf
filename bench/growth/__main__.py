"""`python bench/growth` or `python -m bench.growth`: see `command`.

This folder has no `__init__.py`: bench/ is no part of the distribution.
"""

import os
import sys
from pathlib import Path

if not __package__:
    # Run as a script: modules are found from the root of the repository, not from this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

# As the server has it; NumPy reads it when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from bench.growth.command import main

if __name__ == "__main__":
    main()
