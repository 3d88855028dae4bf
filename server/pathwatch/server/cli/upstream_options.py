"""Options of a relay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pathwatch.server.cli.options import fail

if TYPE_CHECKING:
    from pathwatch.server.config import RelayConfig

F = TypeVar("F", bound=Callable[..., Any])

_PEM = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--upstream",
        metavar="SERVER",
        help="Be a relay: pass everything on to this server, keep nothing (docs/scale.md).",
    ),
    click.option("--upstream-ca", type=_PEM, help="Authority behind the certificates of --upstream, PEM."),
    click.option("--upstream-cert", type=_PEM, help="Our certificate for --upstream, PEM."),
    click.option("--upstream-key", type=_PEM, help="Its private key, PEM."),
    click.option(
        "--upstream-token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="File with the bearer token for calls whose caller shows none.",
    ),
    click.option("--upstream-insecure", is_flag=True, help="Plaintext to --upstream, even off loopback."),
)
_SHARED = frozenset(
    {
        *("listen", "http", "tls_cert", "tls_key", "tls_client_ca", "http_tls", "tokens", "http_tokens"),
        *("audit_log", "max_connection_age", "insecure", "limit", "log_format", "log_level", "check"),
    }
)
"""Options of a server that a relay has, too."""


def upstream_options(function: F) -> F:
    """Adds them; the function gets them as arguments that begin with `upstream`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def to_relay_config(
    context: click.Context, serving: Mapping[str, Any], **upstream: Any
) -> RelayConfig | None:
    """What was said of a relay; None = it is to be a server. `serving`: what both are told.

    Ends the command where options do not go together.
    """
    from pathwatch.server.config import RelayConfig

    given = {
        name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if not upstream["upstream"]:
        if alone := sorted(given & upstream.keys() - {"upstream"}):
            fail(f"{_listed(alone)}: only with --upstream")
        return None
    if beside := sorted(given - upstream.keys() - _SHARED):
        fail(f"{_listed(beside)}: not with --upstream; a relay keeps nothing, its servers do")
    from pathwatch.client.endpoints import Endpoints

    try:
        Endpoints(upstream["upstream"], "")
    except ValueError as error:
        fail(f"--upstream: {error}")
    return RelayConfig(**serving, **upstream)


def _listed(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
