"""Who may reach the server, and how they prove it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pathwatch.server.access.tokens import TokensError, read_tokens
from pathwatch.server.config.addresses import is_loopback, split_address

if TYPE_CHECKING:
    from pathwatch.server.config.serving import ServingConfig


def access_problems(config: ServingConfig) -> list[str]:
    """What is wrong with addresses, files of tokens and the audit log, each one line."""
    problems = []
    for name, address, secured, remedy in (
        ("listen", config.listen, config.tls is not None, "give --tls-cert and --tls-key"),
        ("http", config.http, config.http_tls, "give --http-tls"),
    ):
        try:
            reachable = _is_reachable(address)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        if reachable and not secured and not config.insecure:
            problems.append(
                f"{name}: {address} is reachable from other machines and would carry plaintext; "
                f"{remedy}, or --insecure if the network is trusted"
            )
    if config.http_tls and config.tls is None:
        problems.append("http_tls: HTTPS uses the certificate of --tls-cert and --tls-key; give both")
    for name, path in (("tokens", config.tokens), ("http_tokens", config.http_tokens)):
        problems.extend(f"{name}: {problem}" for problem in _token_problems(path))
    if config.audit_log is not None and not config.audit_log.absolute().parent.is_dir():
        problems.append(f"audit_log: there is no folder {config.audit_log.absolute().parent}")
    return problems


def access_warnings(config: ServingConfig) -> list[str]:
    """What whoever runs the server should know is open, each one line."""
    warnings = []
    if _is_reachable(config.listen) and config.tokens is None:
        who = "whoever has a certificate of the client authority"
        if config.tls is None or config.tls.client_ca is None:
            who = "whoever reaches it"
        warnings.append(f"{who} may do everything at {config.listen}, deleting runs included: no --tokens")
    if _is_reachable(config.http) and config.http_tokens is None:
        warnings.append(f"whoever reaches {config.http} reads all runs' metrics: no --http-tokens")
    if _is_reachable(config.listen) and config.tls is None and config.tokens is not None:
        warnings.append(f"tokens travel to {config.listen} in plaintext: anybody on the way reads them")
    if _is_reachable(config.http) and not config.http_tls and config.http_tokens is not None:
        warnings.append(f"tokens travel to {config.http} in plaintext: anybody on the way reads them")
    return warnings


def _is_reachable(address: str) -> bool:
    host, _ = split_address(address)
    return not is_loopback(host)


def _token_problems(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        read_tokens(path)
    except OSError as error:
        return [f"cannot read {path}: {error.strerror}"]
    except TokensError as error:
        return [str(error)]
    return []
