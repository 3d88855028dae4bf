"""What is sent: OLMoE-sized observations in messages of one size, new samples all the time or a fixed set."""

from __future__ import annotations

from dataclasses import dataclass

from bench.overload.messages import EXPERTS, LAYERS

RANKS = 8
"""Connections, each of a rank of one run."""
GROUPS = 8
CAPACITY = 512
"""Samples of a group that are kept of a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One kind of traffic."""

    name: str
    """Last part of the figures' names."""
    samples: int
    """Observations in a message."""
    in_flight: int
    """Messages of a rank that are sent and not acknowledged."""
    window_steps: int
    fixed_set: bool
    """Whether each step observes the same samples, as many of each group as a sketch keeps: then all is kept.
    Else every sample is new, and most lie beyond the smallest hashes."""

    def groups(self, rank: int) -> range:
        """Groups of which a rank sends one message in each step; of a fixed set each sample is sent once."""
        if not self.fixed_set:
            return range(GROUPS)
        ranks_per_group = CAPACITY // self.samples
        return range(rank // ranks_per_group, GROUPS, RANKS // ranks_per_group)

    def sample_ids(self, rank: int, step: int) -> range:
        """Samples of a rank's messages of this step; ranks that send the same groups share none."""
        if self.fixed_set:
            first = rank % (CAPACITY // self.samples) * self.samples
        else:
            first = (step * RANKS + rank) * self.samples
        return range(first, first + self.samples)

    @property
    def weight_bytes(self) -> int:
        """Bytes of routing weights in a message, float16."""
        return self.samples * LAYERS * EXPERTS * 2


STREAM = Workload(name="stream", samples=256, in_flight=8, window_steps=8, fixed_set=False)
"""A window sees 16,384 samples of each group; 512 are kept. It closes every few seconds."""
KEPT = Workload(name="kept", samples=256, in_flight=8, window_steps=16, fixed_set=True)
"""As a probe set is read again and again: every observation changes the sketch and must be on disk."""
SMALL = Workload(name="small", samples=1, in_flight=64, window_steps=4096, fixed_set=False)
"""Messages of 2 KB. Its windows do not close: at this size they would take hours to fill."""
