"""`python bench/scale` or `python -m bench.scale`: see `command`.

This folder has no `__init__.py`: bench/ is no part of the distribution.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:
    # Run as a script: modules are found from the root of the repository, not from this folder.
    sys.path[0] = str(ROOT)
# The Redis is that of the tests.
sys.path.append(str(ROOT / "tests" / "support"))

from bench.scale.command import main  # noqa: E402 (after the path)

if __name__ == "__main__":
    main()
