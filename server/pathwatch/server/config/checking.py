"""What is wrong with a configuration, before anything is started with it."""

from __future__ import annotations

from pathwatch.server.config.access import access_problems
from pathwatch.server.config.server import ServerConfig, server_problems
from pathwatch.server.config.serving import serving_problems
from pathwatch.server.config.upstream import RelayConfig, upstream_problems


def check(config: ServerConfig | RelayConfig) -> list[str]:
    """All problems of a configuration, each one line; empty when the process could start."""
    own = upstream_problems(config) if isinstance(config, RelayConfig) else server_problems(config)
    return [*access_problems(config), *own, *serving_problems(config)]
