"""What of a rank's batch a server may want."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.relay.cutting import cut
from pathwatch.server.sketch.admission import Admission, admission
from pathwatch.server.sketch.errors import SketchError
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.settings import SketchSettings, check_fit
from pathwatch.v1 import routing_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """A batch, as it is to go on."""

    batch: routing_pb2.ObservationBatch | None
    """None = nothing of it."""
    sample_ids_N: NDArray[np.int64]
    hashes_N: NDArray[np.uint64]
    """Of the observations that go on."""
    cut: int
    """How many do not."""


def sift(
    batch: routing_pb2.ObservationBatch,
    attempt: int,
    topology: Topology,
    settings: SketchSettings,
    hash_limit: int | None,
    *,
    keep_one: bool,
) -> Sifted | None:
    """The observations with a hash below the limit; one of the others where there are none, and `keep_one`.

    None = a server would refuse the batch, and is to say so in its own words.
    """

    def admit(group: str, step: int, sample_ids_N: NDArray[np.int64]) -> Admission | None:
        return admission(settings.run, group, sample_ids_N, hash_limit)

    try:
        block = decode_batch(batch, attempt, topology, admit)
        check_fit(block, settings)
    except (RefusedError, SketchError):
        return None
    ids_N = np.frombuffer(batch.sample_ids.data, "<i8").astype(np.int64)
    kept_N = None if block.admission is None else block.admission.wanted_N
    if kept_N is not None and not kept_N.size and keep_one:
        kept_N = np.zeros(1, np.intp) if len(ids_N) > 1 else None
    if kept_N is None:
        return Sifted(
            batch=batch, sample_ids_N=ids_N, hashes_N=sample_hash(settings.run, batch.group, ids_N), cut=0
        )
    kept = ids_N[kept_N]
    return Sifted(
        batch=cut(batch, kept_N) if kept_N.size else None,
        sample_ids_N=kept,
        hashes_N=sample_hash(settings.run, batch.group, kept),
        cut=len(ids_N) - kept_N.size,
    )
