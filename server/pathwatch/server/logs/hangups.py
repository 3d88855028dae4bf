"""Callers that hang up while they are answered: everyday, and no error of ours."""

from __future__ import annotations

import logging

import grpc

log = logging.getLogger("pathwatch.server")

_LOGGER = "grpc._cython.cygrpc"
_UNSENT = 'Failed "execute_batch"'


class _HangUps(logging.Filter):
    """What is being sent when a call ends fails before gRPC hears of the end: it takes that for an error, and
    logs it with its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is about something else."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, grpc.aio.InternalError) or not str(error).startswith(_UNSENT):
            return True
        log.debug("a caller was gone before all was sent: %s", record.getMessage())
        return False


_FILTER = _HangUps()


def expect_hangups() -> None:
    """From now on they are logged for debugging alone."""
    logging.getLogger(_LOGGER).addFilter(_FILTER)
