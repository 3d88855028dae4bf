"""How many histories of a state machine are drawn, and which."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def drawn(examples: int, *, rules: int) -> settings:
    """So many histories of at most so many rules.

    The same ones every time, so that a change is to blame for what fails; others with PATHWATCH_SEED.
    """
    return settings(
        max_examples=examples,
        stateful_step_count=rules,
        derandomize="PATHWATCH_SEED" not in os.environ,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
