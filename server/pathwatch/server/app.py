"""The whole server: store, engine, gRPC and HTTP, from start to drained."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.run_services import RunServices
from pathwatch.server.api.server import GrpcServer
from pathwatch.server.changes.feed import ChangeFeed
from pathwatch.server.config import (
    AddressError,
    RelayConfig,
    ServerConfig,
    WebhooksError,
    access_warnings,
    check,
)
from pathwatch.server.engine.engine import Engine
from pathwatch.server.exporter.endpoint import metrics_application, metrics_registry
from pathwatch.server.exporter.webhook_collector import WebhookCollector
from pathwatch.server.logs.decisions import log_change, log_standing
from pathwatch.server.statuspage.routes import page_routes
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.opening import open_store
from pathwatch.server.web.server import HttpServer, Route

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from pathwatch.server.exporter.otlp_push import OtlpPush

log = logging.getLogger("pathwatch.server")

_STOPS = (signal.SIGTERM, signal.SIGINT)


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server is reached, HOST:PORT."""

    grpc: str
    http: str


async def serve(config: ServerConfig | RelayConfig, *, ready: Callable[[Addresses], None]) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the process's exit code.

    `ready` is called once both addresses answer. Raises StartError. Once it has drained, the process is to
    end, and takes no notice of these signals any more.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOPS:
        loop.add_signal_handler(number, stop.set)
    try:
        await _serve_until(config, ready, stop)
    finally:
        for number in _STOPS:
            loop.remove_signal_handler(number)
    for number in _STOPS:  # else it would look as if it had been killed
        signal.signal(number, signal.SIG_IGN)
    return 0


async def _serve_until(
    config: ServerConfig | RelayConfig, ready: Callable[[Addresses], None], stop: asyncio.Event
) -> None:
    if problems := check(config):
        raise StartError("; ".join(problems))
    for warning in access_warnings(config):
        log.warning(warning)
    async with AsyncExitStack() as closing:
        try:
            http, grpc_server = _assemble(config, closing)
        except (StoreError, AddressError, WebhooksError, OSError, ValueError) as error:
            raise StartError(str(error)) from error
        closing.push_async_callback(grpc_server.drain)
        closing.callback(http.drain)
        await grpc_server.start()
        http.start()
        ready(Addresses(grpc=grpc_server.address, http=http.address))
        if isinstance(config, RelayConfig):
            log.info("relay to %s", config.upstream)
        else:
            log.info("status page: %s://%s/", "https" if config.http_tls else "http", http.address)
        await stop.wait()
        log.info("draining")


def _assemble(config: ServerConfig | RelayConfig, closing: AsyncExitStack) -> tuple[HttpServer, GrpcServer]:
    """What is to be served; `closing` takes it down again in the right order."""
    if isinstance(config, RelayConfig):
        from pathwatch.server.relay.assembly import assemble_relay  # the client, which servers do not need

        return assemble_relay(config, closing)
    return _assemble_server(config, closing)


def _assemble_server(config: ServerConfig, closing: AsyncExitStack) -> tuple[HttpServer, GrpcServer]:
    """Everything from the store up."""
    opened = open_store(config, closing)
    store = opened.store
    engine = Engine(store, limits=config.limits, compute_threads=config.compute_threads, leases=opened.leases)
    counts = AccessCounts()
    notifier = None
    if config.webhooks is not None:
        from pathwatch.server.notify.notifier import Notifier  # HTTP clients, which few servers need

        notifier = Notifier(engine, store, config.data, config.webhooks, config.public_url, counts)
        closing.callback(notifier.close)
    engine.start()
    standing = engine.views
    log_standing(standing.values())
    decisions = ChangeFeed(engine, store, log_change, standing)
    closing.callback(decisions.close)
    closing.callback(engine.stop)
    decisions.start()
    calls = CallCounts()
    registry = metrics_registry(config, engine, store, counts, calls)
    if notifier is not None:
        registry.register(WebhookCollector(notifier.counts))
        notifier.start()
    routes = [*page_routes(engine, store), Route("/metrics", metrics_application(registry))]
    http = HttpServer(config, routes, counts)
    closing.callback(http.close)
    if config.otlp_endpoint is not None:
        push = _otlp_push(config, config.otlp_endpoint, registry, http.address)
        push.start()
        closing.push_async_callback(asyncio.to_thread, push.close)
    return http, GrpcServer(config, RunServices(config, engine, store), engine.stats, counts, calls)


def _otlp_push(
    config: ServerConfig, endpoint: str, registry: CollectorRegistry, http_address: str
) -> OtlpPush:
    from pathwatch.server.exporter.otlp_push import OtlpPush  # needs what only the extra `otlp` installs

    instance = f"{socket.gethostname()}:{http_address.rpartition(':')[2]}"
    return OtlpPush(registry, endpoint, config.otlp_interval_seconds, instance)


class BackgroundServer:
    """A server in a thread of this process, on free loopback ports; for replay, tests and the like.

    A context manager: ready when entered, drained when left. Errors at the start are raised on entering.
    """

    def __init__(self, config: ServerConfig | RelayConfig) -> None:
        """`config` sets everything but the addresses."""
        self._config = replace(config, listen="127.0.0.1:0", http="127.0.0.1:0")
        self._started = threading.Event()
        self._addresses: Addresses | None = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="pathwatch-server")

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of the gRPC services."""
        return self._require().grpc

    @property
    def http_address(self) -> str:
        """HOST:PORT of /metrics."""
        return self._require().http

    def __enter__(self) -> BackgroundServer:
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _require(self) -> Addresses:
        if self._addresses is None:
            raise RuntimeError("the server runs only inside `with`")
        return self._addresses

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if self._started.is_set():
                raise
            self._error = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def ready(addresses: Addresses) -> None:
            self._addresses = addresses
            self._started.set()

        await _serve_until(self._config, ready, self._stop)
