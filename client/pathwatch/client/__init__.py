"""Client of the pathwatch sidecar: `RoutingStream` for training jobs, `Client` for schedulers and tools."""

import os

# gRPC's own fork handlers stop its threads in the *parent*, and hang or crash it or the child when calls are
# under way (measured with 1.85). Ours leave a child's copy alone, which needs no handlers. gRPC reads this
# when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from pathwatch.client.calls import Client
from pathwatch.client.channel import Credentials
from pathwatch.client.errors import PathwatchError
from pathwatch.client.observations import RawScores
from pathwatch.client.spool import Spool
from pathwatch.client.stream import RoutingStream, StreamStats
from pathwatch.client.tensors import from_tensor, to_tensor

__all__ = [
    "Client",
    "Credentials",
    "PathwatchError",
    "RawScores",
    "RoutingStream",
    "Spool",
    "StreamStats",
    "from_tensor",
    "to_tensor",
]
