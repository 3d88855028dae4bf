"""Settings of all tests."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import pathwatch.client  # noqa: F401  # before gRPC, which tests import too: what it sets is read only once

# The same examples every time, so that a change is to blame for what fails; others with PATHWATCH_SEED.
# A deadline per example, and how long drawing one takes, measure the machine, not the code.
settings.register_profile(
    "pathwatch",
    derandomize="PATHWATCH_SEED" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pathwatch")
# `make quick`; tests that say themselves how many they need draw as many.
settings.register_profile("quick", settings.get_profile("pathwatch"), max_examples=20)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command of the test set up for its log does not stay for the tests after it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
