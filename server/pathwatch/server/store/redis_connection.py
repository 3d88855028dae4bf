"""Connections to Redis: to a server, to whichever server sentinels name, or to a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis import Redis, RedisCluster, Sentinel
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from pathwatch.server.config.redis import RedisAddress, RedisOptions, Topology, redis_tls
from pathwatch.server.config.secrets import Secret, SecretError
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.redis_keys import key

ERRORS = (RedisError, RedisClusterException, SecretError, OSError)
"""What talking to Redis raises."""

Call = Sequence[bytes | str | int]
"""A command with its arguments."""


class _Account(CredentialProvider):
    """Reads the password anew for each connection, so that a file may be replaced."""

    def __init__(self, user: str, password: Secret) -> None:
        self._user, self._password = user, password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password.read()
        return (self._user, password) if self._user else (password,)


class RedisConnection:
    """For any thread."""

    def __init__(self, address: RedisAddress, options: RedisOptions) -> None:
        """Raises StoreError where a cluster cannot be reached; else nothing is asked yet."""
        self.address = address
        self._options = options
        self._stale = False
        self._closed = False
        self.connections = 0
        """How many were made: with a new one, Redis may be another process, or another server."""
        try:
            # Its own types leave open whether it is asynchronous.
            self._client: Any = self._connect()
        except ERRORS as error:
            raise self.failure("reach", error) from error

    def failure(self, doing: str, error: Exception) -> StoreError:
        """What to raise for an error of Redis, or on the way to it."""
        return StoreError(f"cannot {doing} Redis at {self.address}: {error or type(error).__name__}")

    @contextlib.contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Turns errors into StoreError."""
        try:
            yield
        except ERRORS as error:
            self._stale = True
            raise self.failure(doing, error) from error
        except Exception as error:
            if not self._closed:
                raise
            # Whoever reads a connection that is closed under him may be told anything.
            raise self.failure(doing, error) from error

    def command(self, *call: bytes | str | int) -> Any:
        """The reply to a command that reads a key. Raises StoreError."""
        with self._failures("read"):
            return self._client.execute_command(*call)

    def change(self, *call: bytes | str | int) -> None:
        """Have a command change a key. Raises StoreError."""
        with self._failures("write to"):
            self._client.execute_command(*call)

    def script(self, text: str, keys: Sequence[str], *arguments: bytes | str | int) -> Any:
        """The reply of a script that only reads. Raises StoreError."""
        with self._failures("read"):
            return self._client.eval(text, len(keys), *keys, *arguments)

    def send(self, calls: Mapping[str, Sequence[Call]], replicas: int) -> dict[str, list[Any]]:
        """Bring calls to the nodes that hold their runs: those of a run in order, all of a node at once.

        Gives the replies of each run; errors are among them. Where a node cannot be talked to, or fewer than
        `replicas` replicas have what was written, that is the reply to all of its calls: what became of them
        is not known. Raises StoreError where it is not known either which nodes there are.
        """
        with self._failures("write to"):
            nodes = self._by_node(calls)
        replies: dict[str, list[Any]] = {}
        for node, runs in nodes:
            own = {run: calls[run] for run in runs}
            try:
                replies |= self._send(node, own, replicas)
            except ERRORS as error:
                self._stale = True
                replies |= {run: [error] * len(calls) for run, calls in own.items()}
        return replies

    def each_node(self, ask: Callable[[Any], Any]) -> list[Any]:
        """What `ask` finds at each server that takes writes. Raises StoreError."""
        with self._failures("ask"):
            return [ask(node) for node in self._masters()]

    def close(self) -> None:
        """Let go of all connections; what others are just reading fails."""
        self._closed = True
        self._client.close()

    def _send(self, node: Any, calls: Mapping[str, Sequence[Call]], replicas: int) -> dict[str, list[Any]]:
        pipeline = node.pipeline(transaction=False)
        for own in calls.values():
            for call in own:
                pipeline.execute_command(*call)
        if replicas:
            # Half the time that a reply may take: the rest is for the reply.
            pipeline.execute_command("WAIT", replicas, int(500 * self._options.timeout_seconds))
        found = pipeline.execute(raise_on_error=False)
        if replicas and (isinstance(confirmed := found.pop(), Exception) or confirmed < replicas):
            told = (
                confirmed
                if isinstance(confirmed, Exception)
                else f"{confirmed} of {replicas} replicas have it"
            )
            raise LostError(f"written, but {told}")
        if any(isinstance(reply, RedisError) for reply in found):
            self._stale = True
        replies = iter(found)
        return {run: [next(replies) for _ in own] for run, own in calls.items()}

    def _by_node(self, runs: Iterable[str]) -> list[tuple[Any, list[str]]]:
        if self.address.topology is not Topology.CLUSTER:
            return [(self._client, list(runs))]
        if self._stale:
            # The nodes that hold the slots may be others now.
            self._client.nodes_manager.initialize()
            self._stale = False
        by_node: dict[str, tuple[Any, list[str]]] = {}
        for run in runs:
            node = self._client.get_node_from_key(key(run, "commits"))
            connection = self._client.get_redis_connection(node)
            by_node.setdefault(node.name, (connection, []))[1].append(run)
        return list(by_node.values())

    def _masters(self) -> list[Any]:
        if self.address.topology is not Topology.CLUSTER:
            return [self._client]
        return [self._client.get_redis_connection(node) for node in self._client.get_primaries()]

    def _connect(self) -> Any:
        address, options = self.address, self._options
        password = options.password or address.password
        common: dict[str, Any] = {
            "socket_timeout": options.timeout_seconds,
            "socket_connect_timeout": options.timeout_seconds,
            "socket_keepalive": True,
            # A connection that was left open may have been cut; a reply that is late comes no sooner twice.
            "retry": Retry(ConstantBackoff(0.05), 1, supported_errors=(LostError,)),
            "client_name": "pathwatch",
            "redis_connect_func": self._connected,
        }
        if address.tls:
            common |= {"ssl": True, **self._tls()}
        account: dict[str, Any] = {}
        if password is not None:
            account["credential_provider"] = _Account(address.user, password)
        if address.topology is Topology.CLUSTER:
            nodes = [ClusterNode(*host) for host in address.hosts]  # type: ignore[no-untyped-call]
            return RedisCluster(startup_nodes=nodes, **common, **account)
        if address.topology is Topology.SENTINEL:
            secret = options.sentinel_password
            asking = common | ({} if secret is None else {"credential_provider": _Account("", secret)})
            master_for: Any = Sentinel(list(address.hosts), sentinel_kwargs=asking).master_for  # type: ignore[no-untyped-call]
            return master_for(address.service, db=address.database, **common, **account)
        ((host, port),) = address.hosts
        return Redis(host=host, port=port, db=address.database, **common, **account)

    def _connected(self, connection: Any) -> None:
        self.connections += 1
        connection.on_connect()

    def _tls(self) -> dict[str, Any]:
        redis_tls(self._options)
        options = self._options
        return {
            "ssl_ca_certs": options.ca and str(options.ca),
            "ssl_certfile": options.cert and str(options.cert),
            "ssl_keyfile": options.key and str(options.key),
            "ssl_min_version": 0x0303,
        }
