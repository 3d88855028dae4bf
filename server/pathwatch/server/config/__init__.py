"""Configuration of a server: addresses, access, limits."""

from pathwatch.server.config.access import TlsFiles
from pathwatch.server.config.addresses import AddressError, is_loopback, split_address
from pathwatch.server.config.limits import Limits, Meaning, Past, meanings, parse_limits
from pathwatch.server.config.server import ServerConfig, check

__all__ = [
    "AddressError",
    "Limits",
    "Meaning",
    "Past",
    "ServerConfig",
    "TlsFiles",
    "check",
    "is_loopback",
    "meanings",
    "parse_limits",
    "split_address",
]
