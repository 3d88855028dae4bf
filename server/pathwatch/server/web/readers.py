"""Who may read over HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.access.tokens import Scope, TokenTable


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is not answered."""

    status: str
    why: str
    headers: tuple[tuple[str, str], ...] = ()


class Readers:
    """Tokens with the scope read that are bound to no runs: /metrics and the API show all of them."""

    def __init__(self, tokens: Reloaded[TokenTable] | None, counts: AccessCounts) -> None:
        """Without `tokens` everyone may read."""
        self._tokens = tokens
        self._counts = counts

    def check(self, authorization: str) -> Denied | None:
        """Whether the header opens the door; None = it does."""
        if self._tokens is None:
            return None
        kind, _, secret = authorization.partition(" ")
        token = self._tokens.current().find(secret.strip()) if kind.lower() == "bearer" else None
        if token is None or token.has_expired(time.time()):
            self._counts.refuse("http", "unauthenticated")
            challenge = ("WWW-Authenticate", 'Bearer realm="pathwatch"')
            return Denied("401 Unauthorized", "a bearer token is needed\n", (challenge,))
        if Scope.READ not in token.scopes or not token.is_for_all_runs:
            self._counts.refuse("http", "forbidden")
            return Denied("403 Forbidden", "the token needs the scope read, for all runs\n")
        return None
