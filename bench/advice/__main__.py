"""`python bench/advice` or `python -m bench.advice`: see `command`.

This folder has no `__init__.py`: bench/ is no part of the distribution.
"""

import sys
from pathlib import Path

if not __package__:
    # Run as a script: modules are found from the root of the repository, not from this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bench.advice.command import main

if __name__ == "__main__":
    main()
