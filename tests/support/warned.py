"""What servers of this process warn of."""

from __future__ import annotations

import logging

import pytest


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and worse, without what threads of other tests' clients may have to say."""
    records = [record for record in caplog.records if record.name == "pathwatch.server"]
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]
