"""Configuration of a server: addresses, access, limits."""

from pathwatch.server.config.access import TlsFiles
from pathwatch.server.config.addresses import AddressError, is_loopback, split_address
from pathwatch.server.config.limits import Limits
from pathwatch.server.config.server import ServerConfig, check

__all__ = [
    "AddressError",
    "Limits",
    "ServerConfig",
    "TlsFiles",
    "check",
    "is_loopback",
    "split_address",
]
