"""Every call passes here: who is it, and may they call this method, on this run? All else is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc

from pathwatch.server.access.audit import AuditLog
from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.access.tokens import Token, TokenTable
from pathwatch.server.api.methods import RULES, Rule
from pathwatch.server.api.status import abort
from pathwatch.server.engine.refusal import Code, RefusedError, one_line

Context = grpc.aio.ServicerContext[Any, Any]

_REASONS = {Code.UNAUTHENTICATED: "unauthenticated", Code.PERMISSION_DENIED: "forbidden"}


class Authorization(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses what `RULES` and the tokens do not allow, and writes down refusals and control calls."""

    def __init__(self, tokens: Reloaded[TokenTable] | None, audit: AuditLog, counts: AccessCounts) -> None:
        """Without `tokens` everyone may call every method that has a rule."""
        self._tokens = tokens
        self._audit = audit
        self._counts = counts

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Once per call; only where a token is to be checked do messages pass through us."""
        handler = await continuation(handler_call_details)
        rule = RULES.get(handler_call_details.method)
        if handler is None or (rule is not None and not rule.scopes):
            return handler
        if rule is not None and self._tokens is None and not rule.audited:
            return handler
        guard = _Guard(handler, _Pass(handler_call_details, rule, self._tokens), self._audit, self._counts)
        return await guard.handler()


class _Pass:
    """What the caller of one call may do. Its methods raise RefusedError."""

    def __init__(
        self, details: grpc.HandlerCallDetails, rule: Rule | None, tokens: Reloaded[TokenTable] | None
    ) -> None:
        self.method = details.method
        self.rule = rule
        self.token: Token | None = None
        self.run: str | None = None
        """The run that the call is about, once that is known."""
        self._headers = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        self._tokens = tokens
        self._table: TokenTable | None = None

    async def enter(self) -> None:
        """May the method be called?"""
        if self.rule is None:
            raise RefusedError(
                Code.PERMISSION_DENIED, f"{self.method} is closed: this server has no rule for it"
            )
        if self._tokens is not None:
            self._show(await self._tokens.newest(), self.rule)

    def concern(self, request: Any) -> None:
        """May it be called on the run that the request is about, whether or not there is such a run?"""
        if self.rule is not None and self.rule.run is not None:
            self.run = self.rule.run(request)
        self._check_run()

    async def renew(self) -> None:
        """May the call go on? Tokens expire and are replaced while it lasts."""
        if self._tokens is None or self.token is None or self.rule is None:
            return
        table = await self._tokens.newest()
        if table is not self._table or self.token.has_expired(time.time()):
            self._show(table, self.rule)
            self._check_run()

    def shown(self, response: Any) -> Any:
        """What of a response the caller may see."""
        token, rule = self.token, self.rule
        if token is None or rule is None or rule.narrow is None or token.is_for_all_runs:
            return response
        return rule.narrow(response, token.is_for)

    def _show(self, table: TokenTable, rule: Rule) -> None:
        token = table.find(self._secret())
        if token is None:
            raise RefusedError(
                Code.UNAUTHENTICATED,
                "the bearer token is not known to this server; it may have been replaced",
            )
        # Named from here on, to its holder and in the audit log.
        self._table, self.token = table, token
        if token.has_expired(time.time()):
            raise RefusedError(Code.UNAUTHENTICATED, f"token {token.name!r} expired at {token.expires}")
        if not token.scopes & rule.scopes:
            raise RefusedError(
                Code.PERMISSION_DENIED,
                f"{self.method} needs the scope {' or '.join(sorted(rule.scopes))}; "
                f"token {token.name!r} has {', '.join(sorted(token.scopes))}",
            )

    def _check_run(self) -> None:
        if self.token is not None and self.run is not None and not self.token.is_for(self.run):
            raise RefusedError(
                Code.PERMISSION_DENIED, f"token {self.token.name!r} is not for run {self.run!r}"
            )

    def _secret(self) -> str:
        if len(self._headers) != 1:
            came = "none came" if not self._headers else "more than one came"
            raise RefusedError(
                Code.UNAUTHENTICATED,
                f"this server wants a bearer token with every call, {came}; "
                "set PATHWATCH_TOKEN or PATHWATCH_TOKEN_FILE",
            )
        kind, _, secret = str(self._headers[0]).partition(" ")
        if kind.lower() != "bearer":
            raise RefusedError(Code.UNAUTHENTICATED, "authorization is not of the kind Bearer")
        return secret.strip()


class _Guard:
    """A method's handler for one call, with the checks around it."""

    def __init__(
        self,
        handler: grpc.RpcMethodHandler[Any, Any],
        pass_: _Pass,
        audit: AuditLog,
        counts: AccessCounts,
    ) -> None:
        self._inner: Any = handler
        self._pass = pass_
        self._audit = audit
        self._counts = counts

    async def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler that gRPC is to use; it reads no request of those who may not call the method."""
        try:
            await self._pass.enter()
        except RefusedError as refusal:
            return self._refusing(refusal)
        codecs = (self._inner.request_deserializer, self._inner.response_serializer)
        if self._inner.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary_unary, *codecs)
        if self._inner.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._unary_stream, *codecs)
        if self._inner.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._stream_stream, *codecs)
        raise NotImplementedError(f"{self._pass.method}: no guard for calls that stream requests alone")

    def _refusing(self, refusal: RefusedError) -> grpc.RpcMethodHandler[Any, Any]:
        async def refuse(_: object, context: Context) -> None:
            async with self._recorded(context):
                raise refusal

        # Of whatever kind the method is: a stream's requests are not read unless they are asked for.
        return grpc.stream_stream_rpc_method_handler(refuse, None, self._inner.response_serializer)

    async def _unary_unary(self, request: Any, context: Context) -> Any:
        async with self._recorded(context):
            self._pass.concern(request)
            return self._pass.shown(await self._inner.unary_unary(request, context))

    async def _unary_stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        async with self._recorded(context):
            self._pass.concern(request)
            async with aclosing(self._inner.unary_stream(request, context)) as responses:
                async for response in responses:
                    await self._pass.renew()
                    yield response

    async def _stream_stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        guarded = self._inner.stream_stream(self._checked(requests), context)
        async with self._recorded(context), aclosing(guarded) as responses:
            async for response in responses:
                await self._pass.renew()
                yield response

    async def _checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        is_first = True
        async for request in requests:
            if is_first:
                self._pass.concern(request)
                is_first = False
            await self._pass.renew()
            yield request

    @asynccontextmanager
    async def _recorded(self, context: Context) -> AsyncIterator[None]:
        """Ends the call where it is refused; writes down what is to be, where possible before the answer."""
        try:
            yield
        except RefusedError as refusal:
            if refusal.code not in _REASONS:
                raise
            self._counts.refuse("grpc", _REASONS[refusal.code])
            self._record(context, refusal.code.name, refused=True)
            await abort(context, refusal)
        except asyncio.CancelledError:
            self._record_control(context, "CANCELLED")  # it may have been carried out all the same
            raise
        except Exception:
            self._record_control(context, getattr(context.code(), "name", "UNKNOWN"), refused=True)
            raise
        else:
            self._record_control(context, "OK")

    def _record_control(self, context: Context, outcome: str, *, refused: bool = False) -> None:
        if self._pass.rule is not None and self._pass.rule.audited:
            self._record(context, outcome, refused=refused)

    def _record(self, context: Context, outcome: str, *, refused: bool) -> None:
        self._audit.record(
            peer=context.peer(),
            token=self._pass.token.name if self._pass.token else None,
            method=self._pass.method,
            run=None if self._pass.run is None else one_line(self._pass.run),
            outcome=outcome,
            refused=refused,
        )
