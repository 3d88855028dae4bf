"""What can go wrong with a call, in one clear line."""

from __future__ import annotations

import re
from collections.abc import Collection

import grpc

from pathwatch.client.addresses import host_of

# Our servers' words, and gRPC's own for servers and proxies that close connections by age.
_AGE = re.compile(r"connection age|max_age")
_LONGEST = 1000
"""Characters of what is taken over from a server."""
_OWNER = "pathwatch-owner"
_PREFIXES = ("failed to connect to all addresses; last error: ", "UNKNOWN: ", "UNAVAILABLE: ")


class PathwatchError(Exception):
    """A call failed. The text is one line that says what was wrong, where, and what to do."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        """gRPC status code of the failure."""

    def of_all(self, tried: Collection[str]) -> PathwatchError:
        """This failure as the last of those with every server that was tried."""
        return self if len(tried) < 2 else PathwatchError(self.code, f"{self}; tried {', '.join(tried)}")


def explain(error: grpc.RpcError, address: str, timeout: float | None = None) -> PathwatchError:
    """The failure of a call to `address` that was given `timeout` seconds."""
    code, details = status_of(error)
    if is_moving(error):
        return PathwatchError(code, f"pathwatch server at {address}: {one_line(details)}")
    if ended_by_silence(error):
        return PathwatchError(
            code, f"pathwatch server at {address} does not answer pings: it is frozen, or the network is gone"
        )
    if code is grpc.StatusCode.UNAVAILABLE:
        return PathwatchError(code, f"no pathwatch server at {address} ({_reason(details)})")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        within = f" within {timeout:g} s" if timeout is not None else " in time"
        return PathwatchError(code, f"pathwatch server at {address} did not answer{within}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return PathwatchError(
            code, f"the server at {address} does not speak pathwatch.v1 ({_reason(details)})"
        )
    return PathwatchError(code, one_line(details) or f"pathwatch server at {address}: {code.name}")


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Status code and details of a failed call."""
    if not isinstance(error, grpc.Call):
        return grpc.StatusCode.UNKNOWN, str(error)
    return error.code() or grpc.StatusCode.UNKNOWN, error.details() or ""


def owner_of(error: grpc.RpcError) -> str:
    """HOST:PORT of the server that has the run, where the one that was asked named another; else empty."""
    value = _said_owner(error) or ""
    try:
        return value if "/" not in value and host_of(value) else ""
    except ValueError:
        return ""


def is_moving(error: grpc.RpcError) -> bool:
    """Whether the server that was asked said that the run is another's, or will be, named or not."""
    return _said_owner(error) is not None


def ended_by_age(error: grpc.RpcError) -> bool:
    """Whether the call ended only because servers part with every connection some time."""
    code, details = status_of(error)
    return code is grpc.StatusCode.UNAVAILABLE and _AGE.search(details) is not None


def ended_by_silence(error: grpc.RpcError) -> bool:
    """Whether the call ended because a ping was not answered in time."""
    code, details = status_of(error)
    return code is grpc.StatusCode.UNAVAILABLE and "ping timeout" in details


def _said_owner(error: grpc.RpcError) -> str | None:
    if not isinstance(error, grpc.Call):
        return None
    return next((str(value) for key, value in error.trailing_metadata() or () if key == _OWNER), None)


def _reason(details: str) -> str:
    for prefix in _PREFIXES:
        details = details.removeprefix(prefix)
    return one_line(details) or "no reason given"


def one_line(text: str) -> str:
    """What a server says, fit for a log: one line, not too long, control characters escaped."""
    line = " ".join(text[: 2 * _LONGEST].split())
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    return line if line.isprintable() else ascii(line)[1:-1]
