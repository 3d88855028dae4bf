"""How many histories of a state machine are drawn, and which."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def drawn(examples: int, *, rules: int) -> settings:
    """So many histories of at most so many rules, drawn as tests/conftest.py says."""
    return settings(
        max_examples=examples,
        stateful_step_count=rules,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
