"""Client of the pathwatch sidecar: `RoutingStream` for training jobs, `Client` for schedulers and tools."""

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
