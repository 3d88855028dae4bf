"""Where servers are: the forms in which users say it, and the order in which clients of a run ask them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence

import grpc

from pathwatch.client.addresses import host_of
from pathwatch.client.errors import PathwatchError

_DNS = "dns:///"
_FILE = "file://"
_FORMS = "HOST:PORT, several of them with commas between, dns:///NAME:PORT, or file:///PATH"


class Endpoints:
    """The servers that may have a run, where they are now.

    Their order is by rendezvous hashing: all clients of a run ask the same server first, runs are spread
    evenly, and of a server that goes or comes only its own runs move.
    """

    def __init__(self, server: str, run: str) -> None:
        """`server` is one of

        * HOST:PORT, or several of them with commas between,
        * dns:///NAME:PORT: every address that the name has,
        * file:///PATH: one HOST:PORT a line; empty lines, and all from a # on, say nothing.

        Raises:
            ValueError: it is none of these.
        """
        self._server = server
        self._run = run
        self.authority: str | None = None
        """NAME:PORT for which the servers have their certificates; None = each for its own address."""
        self.lone: str | None = None
        """The only address there will be; None = there may be several, or others later."""
        self._look: Callable[[float], Iterable[str]]
        if server.startswith(_DNS):
            self.authority = server.removeprefix(_DNS)
            if "/" in self.authority or not host_of(self.authority):
                raise ValueError(f"server {server!r} is not dns:///NAME:PORT")
            self._look = self._from_dns
        elif server.startswith(_FILE):
            if not server.startswith(f"{_FILE}/"):
                raise ValueError(f"server {server!r}: the path must be absolute, as in file:///etc/pathwatch")
            self._look = self._from_file
        else:
            said = _listed(server)
            self.lone = said[0] if len(said) == 1 else None
            self._look = lambda timeout: said

    def candidates(self, timeout: float = 10.0) -> Sequence[str]:
        """HOST:PORT of each server, first the one to ask first; names and files are looked up anew.

        A name server may take `timeout` seconds.

        Raises:
            PathwatchError: UNAVAILABLE where there is none now, which may change; INVALID_ARGUMENT where the
                file holds something else.
        """
        found = list(dict.fromkeys(self._look(timeout)))
        if not found:
            raise PathwatchError(grpc.StatusCode.UNAVAILABLE, f"{self._server} names no pathwatch server")
        if len(found) == 1:
            return found
        from hashlib import blake2b  # most have one server

        run = self._run.encode()

        def weight(address: str) -> tuple[bytes, str]:
            return blake2b(run + b"\0" + address.encode(), digest_size=8).digest(), address

        return sorted(found, key=weight, reverse=True)

    def _from_dns(self, timeout: float) -> Iterable[str]:
        name, _, port = str(self.authority).rpartition(":")
        for address in _addresses(name.strip("[]"), timeout):
            yield f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def _from_file(self, timeout: float) -> Iterable[str]:
        path = self._server.removeprefix(_FILE)
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise PathwatchError(
                grpc.StatusCode.UNAVAILABLE, f"file of servers {path}: {error.strerror or error}"
            ) from error
        except UnicodeDecodeError as error:
            raise PathwatchError(
                grpc.StatusCode.INVALID_ARGUMENT, f"file of servers {path}: is no text in UTF-8"
            ) from error
        for number, line in enumerate(lines, start=1):
            if not (address := line.partition("#")[0].strip()):
                continue
            try:
                host_of(address)
            except ValueError as error:
                raise PathwatchError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"file of servers {path}, line {number}: {error}"
                ) from error
            yield address


def _listed(server: str) -> Sequence[str]:
    addresses = [address.strip() for address in server.split(",")]
    for address in addresses:
        try:
            host_of(address)
        except ValueError as error:
            raise ValueError(f"{error}; a server is {_FORMS}") from error
    return addresses


def _addresses(name: str, timeout: float) -> Sequence[str]:
    """All that the name has now; in a thread, for `getaddrinfo` has no time limit of its own."""
    found: list[str] = []
    why = [f"no answer within {timeout:g} s"]

    def ask() -> None:
        try:
            found.extend(
                str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:
            why.append(getattr(error, "strerror", None) or str(error))

    thread = threading.Thread(target=ask, name="pathwatch-names", daemon=True)
    thread.start()
    thread.join(timeout)
    if not found:
        raise PathwatchError(grpc.StatusCode.UNAVAILABLE, f"no address of {name!r}: {why[-1]}")
    return found
