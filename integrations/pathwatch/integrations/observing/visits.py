"""How often probe samples were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class VisitCounter:
    """How often this rank trained on each probe sample."""

    def __init__(self, groups: Mapping[str, Tensor]) -> None:
        """`groups`: name → sample ids of the probe."""
        self._sorted = {name: ids.cpu().sort() for name, ids in groups.items()}
        self._counts = {name: torch.zeros(len(ids), dtype=torch.int64) for name, ids in groups.items()}

    def add(self, group: str, sample_ids: Tensor | Sequence[int]) -> None:
        """Count one batch's samples of a group; ids that are not in the probe do not matter."""
        if group not in self._counts:
            return
        ids = torch.as_tensor(sample_ids, dtype=torch.int64).reshape(-1).cpu()
        known, order = self._sorted[group]
        place = torch.searchsorted(known, ids).clamp_max(len(known) - 1)
        hit = known[place] == ids
        self._counts[group].index_add_(0, order[place[hit]], torch.ones(int(hit.sum()), dtype=torch.int64))

    def flat(self) -> Tensor:
        """All counts, group after group: what ranks add up."""
        return torch.cat(list(self._counts.values()))

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Counts by group again."""
        sizes = [len(counts) for counts in self._counts.values()]
        return dict(zip(self._counts, flat.split(sizes), strict=True))
