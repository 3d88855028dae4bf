"""`python bench/signal` or `python -m bench.signal`: see `command`.

This folder has no `__init__.py`: a regular package named signal would hide the standard library's from every
script in bench/.
"""

import sys
from pathlib import Path

if not __package__:
    # Run as a script: modules are found from the root of the repository, not from this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bench.signal.command import main

if __name__ == "__main__":
    main()
