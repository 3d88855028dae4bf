"""Columns of the training data that say which sample each row is, carried to the model's forward pass.

Trainer drops the columns that a model does not take, and collators choke on strings. So the columns are
taken out before the training dataloader's collator and put beside its batch, as plain Python in host memory:
reading them never waits for the device. They are taken out again before the model's own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing import Stream, Watch

_logger = QuietLogger("pathwatch.integrations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns, where the job has them."""

    groups: str | None = None
    """The sample's data group; its values are taken as strings."""
    sample_ids: str | None = None
    """The sample's stable number."""

    @classmethod
    def of(cls, stream: Stream) -> Columns:
        """Those that a stream names; what it computes from a batch is no column."""
        groups, sample_ids = stream.groups, stream.sample_ids
        return cls(
            groups=groups if isinstance(groups, str) else None,
            sample_ids=sample_ids if isinstance(sample_ids, str) else None,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns there are."""
        return tuple(name for name in (self.groups, self.sample_ids) if name is not None)


class _DroppingCollator:
    """A collator around another one, which does not get to see the columns."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any], columns: Columns) -> None:
        self._collate = collate
        self._names = frozenset(columns.names)

    def __call__(self, features: Sequence[Any]) -> Any:
        return self._collate(
            [
                {name: value for name, value in feature.items() if name not in self._names}
                if isinstance(feature, Mapping)
                else feature
                for feature in features
            ]
        )


class ColumnCollator:
    """A collator around another one, for which it keeps the columns. Runs in the dataloader's workers."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any], columns: Columns) -> None:
        self._collate = collate
        self._columns = columns
        self._complained = False

    def __call__(self, features: Sequence[Any]) -> Any:
        """The other collator's batch, with the columns of its rows as lists of `str` and `int`."""
        names = self._columns.names
        if not all(isinstance(feature, Mapping) and set(names) <= feature.keys() for feature in features):
            self._complain(names, features[0] if features else {})
            return self._collate(features)
        batch = self._collate(
            [{name: value for name, value in feature.items() if name not in names} for feature in features]
        )
        if isinstance(batch, MutableMapping):
            if self._columns.groups is not None:
                batch[self._columns.groups] = [str(feature[self._columns.groups]) for feature in features]
            if self._columns.sample_ids is not None:
                batch[self._columns.sample_ids] = [
                    int(feature[self._columns.sample_ids]) for feature in features
                ]
        return batch

    def _complain(self, names: Sequence[str], feature: Any) -> None:
        if not self._complained:
            self._complained = True
            held = sorted(feature) if isinstance(feature, Mapping) else type(feature).__name__
            _logger.warning(
                "pathwatch finds no columns %s in samples of the training data, which hold %s: "
                "batches with such samples are not observed",
                ", ".join(map(repr, names)),
                held,
            )


def carry(
    columns: Columns, dataloader: DataLoader[Any], model: nn.Module, watch: Watch
) -> Callable[[], None]:
    """Have the columns travel with the dataloader's batches as far as the model, which does not get them.

    In stream mode the watch takes them before; in probe mode it is told whose forward passes train on what.

    Returns:
        What undoes it.
    """

    def take(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[object, ...], dict[str, Any]]:
        groups = kwargs.pop(columns.groups, None) if columns.groups is not None else None
        sample_ids = kwargs.pop(columns.sample_ids, None) if columns.sample_ids is not None else None
        if module.training and groups is not None and sample_ids is not None:
            for group in dict.fromkeys(groups):
                own = [number for name, number in zip(groups, sample_ids, strict=True) if name == group]
                watch.visited(group, own)
        return args, kwargs

    # What accelerate prepared forwards the reading of attributes to the dataloader it holds, not the writing.
    holder = getattr(dataloader, "base_dataloader", dataloader)
    collate = holder.collate_fn
    holder.collate_fn = ColumnCollator(collate, columns)
    handle = model.register_forward_pre_hook(take, with_kwargs=True, prepend=True)

    def undo() -> None:
        holder.collate_fn = collate
        handle.remove()

    return undo


def drop(columns: Columns, dataloader: DataLoader[Any]) -> Callable[[], None]:
    """Keep the columns from the model of a job that is not observed; returns what undoes it."""
    holder = getattr(dataloader, "base_dataloader", dataloader)
    collate = holder.collate_fn
    holder.collate_fn = _DroppingCollator(collate, columns)

    def undo() -> None:
        holder.collate_fn = collate

    return undo
