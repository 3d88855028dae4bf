"""What counting calls and messages costs: `python bench/call_counts.py`.

Both servers have `Admission` too, which the counting is around in a server of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from answering import Door, measure

from pathwatch.server.api.admission import Admission
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.counting import Counting
from pathwatch.server.config import Limits
from pathwatch.server.engine.stats import Stats
from pathwatch.v1 import routing_pb2

ROUNDS = 15
MESSAGES = 6000
CALLS = 600


def messages() -> Iterator[routing_pb2.StreamRoutingRequest]:
    batch = routing_pb2.ObservationBatch(group="math", sample_ids={"data": bytes(1500)})
    for sequence in range(MESSAGES):
        yield routing_pb2.StreamRoutingRequest(sequence=sequence, batch=batch)


def main() -> None:
    doors = {
        "open": Door([Admission(Limits(), Stats())]),
        "counted": Door([Counting(CallCounts()), Admission(Limits(), Stats())]),
    }
    costs = measure(doors, messages, CALLS, ROUNDS)
    for column, what in enumerate(("message of a stream and its answer", "call")):
        plain, counted = (1e6 * costs[name][column] for name in ("open", "counted"))
        print(f"{what}: {plain:.1f} µs open, {counted:.1f} µs counted; ratio {counted / plain:.3f}")


if __name__ == "__main__":
    main()
