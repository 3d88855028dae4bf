"""Where a process stands among those of its job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What one process sees of the samples and of the layers."""

    rank: int = 0
    """Global rank."""
    world_size: int = 1
    data_rank: int = 0
    """Which data-parallel replica: its processes see the same samples."""
    data_ranks: int = 1
    first_of_replica: bool = True
    """Of the processes that see the same samples, the one that counts them for all."""
    layers: tuple[int, ...] | None = None
    """Pipeline parallel: places of the routed layers held here among all of them; None = all are here."""
    total_layers: int = 0
    """Routed layers of the whole model."""
    losses: bool = True
    """Pipeline parallel: the last stage, which gives the logits, is here."""
    token_part: int = 0
    """Sequence parallel: which part of each sample's tokens is seen here."""
    token_parts: int = 1
    sender: int | None = 0
    """Number of this process among those that send; None = it sees what another one sends."""
    senders: int = 1

    @property
    def observes(self) -> bool:
        """Whether this process has something of the samples to send: layers, or losses."""
        return self.sender is not None and (self.layers != () or self.losses)
