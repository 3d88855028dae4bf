"""Settings of all tests."""

import os

from hypothesis import HealthCheck, settings

# The same examples every time, so that a change is to blame for what fails; others with PATHWATCH_SEED.
# A deadline per example, and how long drawing one takes, measure the machine, not the code.
settings.register_profile(
    "pathwatch",
    derandomize="PATHWATCH_SEED" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pathwatch")
