"""How a command reaches a server: address, credentials, and every failure as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pathwatch.server.cli.options import fail

if TYPE_CHECKING:
    from pathwatch.client import Client, Credentials

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the server is and who is asking."""

    address: str
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token: str | None = field(default=None, repr=False)
    insecure: bool = False

    @property
    def credentials(self) -> Credentials | None:
        """None = plaintext, which the client allows on loopback alone."""
        from pathwatch.client import Credentials

        if not (self.tls or self.tls_ca or self.tls_cert or self.tls_key or self.insecure or self.token):
            return None
        return Credentials(
            root_ca=self.tls_ca,
            cert=self.tls_cert,
            key=self.tls_key,
            token=self.token,
            insecure=self.insecure,
        )

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client whose errors end the command with exit code 2."""
        from pathwatch.client import Client, PathwatchError

        try:
            with Client(self.address, credentials=self.credentials) as client:
                yield client
        except PathwatchError as error:
            fail(error)


_WHO = ("tls", "tls_ca", "tls_cert", "tls_key", "token", "insecure")


def connection_options(default: str | None = "127.0.0.1:50051") -> Callable[[F], F]:
    """Adds the options of a connection and hands them to the command as one argument, `connection`;
    None where `default` is None and no server was named."""
    file = click.Path(exists=True, dir_okay=False)
    options = (
        click.option(
            "--server",
            metavar="HOST:PORT",
            default=default,
            show_default=default is not None,
            help="Address of the pathwatch server.",
        ),
        click.option("--tls", is_flag=True, help="Speak TLS, trusting the public authorities."),
        click.option("--tls-ca", type=file, help="Speak TLS, trusting this PEM file."),
        click.option("--tls-cert", type=file, help="Own certificate, PEM, for mutual TLS."),
        click.option("--tls-key", type=file, help="Its private key, PEM."),
        click.option("--token", help="Bearer token."),
        click.option("--insecure", is_flag=True, help="Plaintext even off loopback."),
    )

    def decorate(function: F) -> F:
        @wraps(function)
        def command(*, server: str | None, **rest: Any) -> Any:
            who = {name: rest.pop(name) for name in _WHO}
            connection = None if server is None else Connection(address=server, **who)
            return function(connection=connection, **rest)

        for option in reversed(options):
            command = option(command)
        return command  # type: ignore[return-value]

    return decorate
