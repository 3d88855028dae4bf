"""Configuration of a server: addresses, access, limits."""

from pathwatch.server.config.access import access_warnings
from pathwatch.server.config.addresses import AddressError, is_loopback, split_address
from pathwatch.server.config.limits import Limits, Meaning, Past, meanings, parse_limits
from pathwatch.server.config.server import ServerConfig, check
from pathwatch.server.config.tls import TlsFiles, server_context

__all__ = [
    "AddressError",
    "Limits",
    "Meaning",
    "Past",
    "ServerConfig",
    "TlsFiles",
    "access_warnings",
    "check",
    "is_loopback",
    "meanings",
    "parse_limits",
    "server_context",
    "split_address",
]
