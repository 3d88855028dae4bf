"""`python -m bench.footprint.rank ADDRESS`: a rank that sends, and says what memory it took, in megabytes:
now, at most, and with the libraries alone. It loads nothing that a job could do without.
"""

from __future__ import annotations

import sys

# First what every client by gRPC loads, to be told apart from what ours adds.
import google.protobuf.internal.builder  # noqa: F401
import grpc  # noqa: F401
import numpy as np

from bench.footprint.status import peak, resident

_STEPS = 20
_SAMPLES, _LAYERS, _EXPERTS = 256, 16, 64


def main() -> None:
    """Send for a while; then measure."""
    libraries = resident("self")
    from pathwatch.client import RoutingStream
    from pathwatch.v1 import run_pb2

    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=_LAYERS, experts=_EXPERTS))
    weights_NLK = np.full((_SAMPLES, _LAYERS, _EXPERTS), 1 / _EXPERTS, np.float16)
    losses_N = np.full(_SAMPLES, 2.0, np.float32)
    stream = RoutingStream(sys.argv[1], run="client", config=config)
    for step in range(_STEPS):
        stream.observe(
            step=step, group="group", sample_ids=np.arange(_SAMPLES), weights=weights_NLK, losses=losses_N
        )
        stream.watermark(step)
        if not stream.flush(60):
            raise RuntimeError(f"not delivered: {stream.stats}")
    print(resident("self"), peak("self"), libraries)
    stream.close()


if __name__ == "__main__":
    main()
