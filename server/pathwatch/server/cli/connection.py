"""How a command reaches a server: address, credentials, and every failure as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pathwatch.server.cli.options import fail

if TYPE_CHECKING:
    from pathwatch.client import Client, Credentials

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the server is and who is asking."""

    address: str
    """In any form that `pathwatch.client.Client` takes."""
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    insecure: bool = False

    @property
    def credentials(self) -> Credentials | None:
        """What was said of it; a token of the command line or the environment goes before a file."""
        from pathwatch.client import Credentials

        given = (self.tls, self.tls_ca, self.tls_cert, self.tls_key, self.insecure, self.token)
        if not any((*given, self.token_file)):
            return None
        return Credentials(
            tls=self.tls,
            root_ca=self.tls_ca,
            cert=self.tls_cert,
            key=self.tls_key,
            token=self.token,
            token_file=None if self.token else self.token_file,
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


_WHO = ("tls", "tls_ca", "tls_cert", "tls_key", "token", "token_file", "insecure")


def _warn_of_the_process_list(ctx: click.Context, param: click.Parameter, token: str | None) -> str | None:
    if token and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE:
        click.echo(
            "pathwatch: a token on the command line can be read by every user of this machine; "
            "use PATHWATCH_TOKEN or --token-file",
            err=True,
        )
    return token


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
            help="Address of the pathwatch server; of several a list with commas, dns:///NAME:PORT or "
            "file:///PATH.",
        ),
        click.option("--tls", is_flag=True, help="Speak TLS, trusting the public authorities."),
        click.option("--tls-ca", type=file, help="Speak TLS, trusting this PEM file."),
        click.option("--tls-cert", type=file, help="Own certificate, PEM, for mutual TLS."),
        click.option("--tls-key", type=file, help="Its private key, PEM."),
        click.option(
            "--token",
            callback=_warn_of_the_process_list,
            help="Bearer token; better in PATHWATCH_TOKEN, or in a file.",
        ),
        click.option("--token-file", type=file, help="File that holds the bearer token."),
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
