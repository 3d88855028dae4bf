"""Ray, imported so that it changes nothing for the tests of others in this process."""

from __future__ import annotations

import logging
import sys

import pytest

with pytest.MonkeyPatch.context() as _kept:
    # It puts modules of its own before those installed, a hook for what nobody catches, a field in all logs.
    _kept.setattr(sys, "path", [*sys.path])
    _kept.setattr(sys, "excepthook", sys.excepthook)
    _factory = logging.getLogRecordFactory()
    import ray.tune  # noqa: F401

    logging.setLogRecordFactory(_factory)
