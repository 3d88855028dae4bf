"""Configuration of a server: addresses, access, webhooks, limits."""

from pathwatch.server.config.access import access_warnings
from pathwatch.server.config.addresses import AddressError, is_loopback, split_address
from pathwatch.server.config.checking import check
from pathwatch.server.config.limits import Limits, Meaning, Past, meanings, parse_limits
from pathwatch.server.config.otlp import otlp_url
from pathwatch.server.config.redis import RedisOptions, is_redis_url
from pathwatch.server.config.secrets import Secret, SecretError
from pathwatch.server.config.server import ServerConfig
from pathwatch.server.config.serving import ServingConfig
from pathwatch.server.config.tls import TlsFiles, server_context
from pathwatch.server.config.upstream import RelayConfig
from pathwatch.server.config.webhook_file import WebhookTable, read_webhooks, webhook_warnings
from pathwatch.server.config.webhooks import Event, Format, Webhook, WebhooksError

__all__ = [
    "AddressError",
    "Event",
    "Format",
    "Limits",
    "Meaning",
    "Past",
    "RedisOptions",
    "RelayConfig",
    "Secret",
    "SecretError",
    "ServerConfig",
    "ServingConfig",
    "TlsFiles",
    "Webhook",
    "WebhookTable",
    "WebhooksError",
    "access_warnings",
    "check",
    "is_loopback",
    "is_redis_url",
    "meanings",
    "otlp_url",
    "parse_limits",
    "read_webhooks",
    "server_context",
    "split_address",
    "webhook_warnings",
]
