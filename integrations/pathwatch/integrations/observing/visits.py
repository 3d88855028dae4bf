"""How often probe samples were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing.agreement import Agreement

_logger = QuietLogger("pathwatch.integrations")


class VisitCounter:
    """Counts what the ranks tell, over restarts too; -1 = not known."""

    def __init__(
        self, groups: Mapping[str, Tensor], agreement: Agreement, *, untrained: bool, counts: bool
    ) -> None:
        """Begin to count.

        Args:
            groups: name → sample ids of the probe.
            agreement: adds up the counts of all ranks.
            untrained: nothing was trained on before; else that is unknown until a state is loaded.
            counts: this process counts for all that see the same samples.
        """
        self._agreement = agreement
        self._counts = counts
        self._ids = {name: ids.to("cpu", torch.int64) for name, ids in groups.items()}
        self._sorted = {name: ids.sort() for name, ids in self._ids.items()}
        self._before = {name: torch.full_like(ids, 0 if untrained else -1) for name, ids in self._ids.items()}
        self._own = {name: torch.zeros_like(ids) for name, ids in self._ids.items()}
        self._said = False

    def add(self, groups: str | Sequence[str | None], sample_ids: Tensor | Sequence[int]) -> None:
        """Count one batch's samples on this rank; ids that are not in the probe do not matter.

        Args:
            groups: data group of every sample, or one for all.
            sample_ids: in host memory.

        Raises:
            ValueError: not as many groups as ids.
        """
        if not self._counts:
            return
        ids = torch.as_tensor(sample_ids, dtype=torch.int64).reshape(-1).cpu()
        if isinstance(groups, str):
            self._add(groups, ids)
            return
        if len(groups) != len(ids):
            raise ValueError(f"{len(ids)} samples were trained on, but {len(groups)} groups told")
        for name in {name for name in groups if name is not None}:
            self._add(name, ids[torch.tensor([group == name for group in groups])])

    def total(self) -> dict[str, Tensor]:
        """Visits [N] by group, over all ranks and attempts. Collective."""
        flat = self._agreement.total(torch.cat(list(self._own.values())))
        counts = flat.split([len(own) for own in self._own.values()])
        total = {
            # Where ranks are lost, what they counted is not in it.
            name: torch.where((self._before[name] < 0) | self._agreement.lost, -1, self._before[name] + own)
            for name, own in zip(self._own, counts, strict=True)
        }
        if (
            not self._said
            and not self._agreement.lost
            and any(bool((visits < 0).any()) for visits in total.values())
        ):
            self._said = True
            _logger.warning(
                "how often the probe's samples were trained on is not known: the job goes on from a "
                "checkpoint without the state that says it (Watch.state_dict); unseen loss cannot be told"
            )
        return total

    def forget(self) -> None:
        """The job went back to an earlier step: it is not known which visits came after it."""
        self._before = {name: torch.full_like(ids, -1) for name, ids in self._ids.items()}

    def state_dict(self) -> dict[str, Any]:
        """Sample ids and visits by group, alike on every rank. Collective."""
        return {
            name: {"sample_ids": self._ids[name], "visits": visits} for name, visits in self.total().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a state; of samples that it does not tell, visits are not known."""
        self._own = {name: torch.zeros_like(ids) for name, ids in self._ids.items()}
        for name, ids in self._ids.items():
            told = state.get(name, {"sample_ids": [], "visits": []})
            visits = dict(zip(_list(told["sample_ids"]), _list(told["visits"]), strict=True))
            self._before[name] = torch.tensor([visits.get(i, -1) for i in ids.tolist()], dtype=torch.int64)

    def _add(self, name: str, ids: Tensor) -> None:
        if name not in self._own:
            return
        known, order = self._sorted[name]
        place = torch.searchsorted(known, ids).clamp_max(len(known) - 1)
        hit = known[place] == ids
        self._own[name].index_add_(0, order[place[hit]], torch.ones(int(hit.sum()), dtype=torch.int64))


def _list(values: Tensor | Sequence[int]) -> list[int]:
    return torch.as_tensor(values, dtype=torch.int64).tolist()  # type: ignore[no-any-return]
