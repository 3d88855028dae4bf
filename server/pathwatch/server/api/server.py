"""The gRPC server: all services, health and reflection on one address."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pathwatch.server.access.audit import AuditLog
from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.token_file import open_tokens
from pathwatch.server.api.admission import Admission
from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.authorization import Authorization
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.channel_options import channel_options
from pathwatch.server.api.counting import Counting
from pathwatch.server.api.requests import BoundedRequests
from pathwatch.server.api.tls import server_credentials
from pathwatch.server.config import AddressError, ServingConfig, split_address
from pathwatch.server.engine.stats import Stats
from pathwatch.server.logs.hangups import expect_hangups
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

SERVICES = (
    routing_pb2.DESCRIPTOR.services_by_name["RoutingService"].full_name,
    run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
    signal_pb2.DESCRIPTOR.services_by_name["SignalService"].full_name,
)

_LAST_STEPS_SECONDS = 5.0
"""Longest wait for what ran the calls, once these are over."""


class Services(Protocol):
    """What answers calls of all `SERVICES`. Made and used on the event loop."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have them called."""
        ...

    def drain(self) -> None:
        """Let long calls end well, and take no more of them."""
        ...

    def close(self) -> None:
        """All calls are over."""
        ...


class GrpcServer:
    """All services on one port. Made and used on the event loop."""

    def __init__(
        self,
        config: ServingConfig,
        services: Services,
        stats: Stats,
        counts: AccessCounts,
        calls: CallCounts,
    ) -> None:
        """Raises AddressError where `config.listen` cannot be had; OSError or ValueError where a file of
        `config.tls`, `config.tokens` or `config.audit_log` cannot be used."""
        expect_hangups()
        self._drain_seconds = config.drain_seconds
        self._not_calls = asyncio.all_tasks()
        self._services = services
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs do not know aio
        self._audit = AuditLog(config.audit_log)
        tokens = open_tokens(config.tokens, "tokens", counts) if config.tokens else None
        self._server = grpc.aio.server(
            interceptors=[
                Counting(calls),
                Admission(config.limits, stats),
                BoundedRequests(config.limits),
                Authorization(tokens, self._audit, counts),
            ],
            options=channel_options(config.limits, ConnectionAge(config.max_connection_age_seconds)),
        )
        services.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.address = self._bind(config, counts)
        """HOST:PORT that is listened on."""

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()
        for service in (health.OVERALL_HEALTH, *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say NOT_SERVING, let streams end with all they sent acknowledged, then take no more calls."""
        await self._health.enter_graceful_shutdown()
        self._services.drain()
        await self._server.stop(self._drain_seconds)
        await self._end_tasks()
        self._services.close()
        self._audit.close()

    async def _end_tasks(self) -> None:
        """`stop` waits for calls, not for what ran them. Ended with the loop, that is cancelled between its
        last two steps, which gRPC takes for an error and logs with its traceback."""
        if left := asyncio.all_tasks() - self._not_calls:
            await asyncio.wait(left, timeout=_LAST_STEPS_SECONDS)

    def _bind(self, config: ServingConfig, counts: AccessCounts) -> str:
        host, port = split_address(config.listen)
        try:
            _check_free(host, port)
        except OSError as error:
            # Of all else gRPC may make something, as of [::] where there is no IPv6.
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise AddressError(f"cannot listen on {config.listen}: {error.strerror}") from error
        try:
            if config.tls is None:
                port = self._server.add_insecure_port(config.listen)
            else:
                port = self._server.add_secure_port(config.listen, server_credentials(config.tls, counts))
        except RuntimeError as error:
            raise AddressError(f"cannot listen on {config.listen}: {error}") from error
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_free(host: str, port: int) -> None:
    """Raises OSError where the address is another's: gRPC would not say so, but write lines of its own."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
