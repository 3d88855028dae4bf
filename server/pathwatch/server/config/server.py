"""What a server is told when it starts, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pathwatch.server.config.notifications import notification_problems
from pathwatch.server.config.otlp import otlp_problems
from pathwatch.server.config.redis import RedisOptions, is_redis_url, redis_problems
from pathwatch.server.config.serving import ServingConfig
from pathwatch.server.config.shards import shard_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(ServingConfig):
    """Configuration of one server process."""

    data: Path
    """Folder for everything durable; made if it is not there. One server at a time may use it."""
    webhooks: Path | None = None
    """YAML file of whom to tell what changes; None = nobody. Read again when it changes."""
    public_url: str = ""
    """Where people find the status page, for links in what webhooks are sent; empty = no links."""
    store: str = field(default="sqlite", repr=False)
    """Where state is kept: "sqlite", in the data folder, or the URL of a Redis, which may hold a password."""
    redis: RedisOptions = field(default_factory=RedisOptions)
    """What else is said of that Redis."""
    shard: str = ""
    """HOST:PORT at which clients and other servers reach this one of several that share a Redis; empty = it
    shares none."""
    lease_seconds: float = 10.0
    """How long after its end, or the last word to Redis, the runs of a shard are still its own."""
    snapshot_minutes: float = 60.0
    """How often a snapshot of the database is taken beside it, where anything changed; 0 = never."""
    compute_threads: int = 2
    """Threads that compute metrics; ingest and signals have threads of their own."""
    finished_series_seconds: float = 3600.0
    """How long /metrics still has a finished run, from its last data."""
    otlp_endpoint: str | None = None
    """URL of an OpenTelemetry collector that metrics are pushed to, by OTLP over HTTP; None = nobody."""
    otlp_interval_seconds: float = 60.0
    """How often they are."""

    @property
    def takes_snapshots(self) -> bool:
        """Whether snapshots are taken of the store; Redis has its own."""
        return self.snapshot_minutes > 0 and not is_redis_url(self.store)


def server_problems(config: ServerConfig) -> list[str]:
    """What is wrong with what is kept, computed and told, each one line."""
    return [
        *_store_problems(config),
        *shard_problems(config.shard, config.store, config.lease_seconds),
        *notification_problems(config.webhooks, config.public_url),
        *otlp_problems(config.otlp_endpoint, config.otlp_interval_seconds),
        *_number_problems(config),
    ]


def _store_problems(config: ServerConfig) -> list[str]:
    problems = []
    if is_redis_url(config.store):
        problems += redis_problems(config.store, config.redis)
    elif config.store != "sqlite":
        # What comes after may hold a password.
        kind = config.store.partition("://")[0]
        problems.append(f"store: {kind!r} is unknown; use sqlite or redis://…")
    elif config.redis != RedisOptions():
        problems.append("redis_…: only with the URL of a Redis as store")
    if config.data.exists() and not config.data.is_dir():
        problems.append(f"data: {config.data} is not a folder")
    return problems


def _number_problems(config: ServerConfig) -> list[str]:
    problems = []
    if config.compute_threads < 1:
        problems.append("compute_threads: must be at least 1")
    if not 0 <= config.snapshot_minutes < float("inf"):
        problems.append("snapshot_minutes: must be a number of minutes, 0 or more (0 = never)")
    if not 0 <= config.finished_series_seconds < float("inf"):
        problems.append("finished_series_seconds: must be a number of seconds, 0 or more")
    return problems
