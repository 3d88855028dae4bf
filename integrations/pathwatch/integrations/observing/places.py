"""From every process's own coordinates to the layout of the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.distributed as dist

from pathwatch.integrations.observing.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one process knows of where it stands."""

    peers: tuple[int, ...]
    """Global ranks that it knows to see the same samples, or other parts of them; itself included. Those of
    its tensor, sequence and pipeline groups: who is joined by several is found from all of them."""
    routers: int
    """Routed layers found here."""
    stage: int = 0
    """Stage of the pipeline."""
    stages: int = 1
    token_part: int = 0
    """Place in its sequence-parallel group."""
    token_parts: int = 1
    tensor_ranks: int = 1
    """Processes that hold a shard each of the same layers and see the same tokens."""


def agreed_layout(place: Place) -> Layout:
    """The layout of this process, from the places of all. Collective, once, over host memory.

    Raises:
        ValueError: on all processes alike, where the places do not fit together.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return layout_of([place], 0)
    group = dist.new_group(backend="gloo")
    places: list[Place] = [place] * dist.get_world_size()
    dist.all_gather_object(places, place, group=group)
    dist.destroy_process_group(group)
    return layout_of(places, dist.get_rank())


def layout_of(places: Sequence[Place], rank: int) -> Layout:
    """Layout of one process of a job.

    Args:
        places: of all processes, by global rank.
        rank: which process.

    Raises:
        ValueError: the processes do not form whole replicas, or these differ in their routed layers.
    """
    replicas = _replicas(places)
    layers_by_stage = _layers_by_stage(places)
    for replica in replicas:
        _check_whole(places, replica)
    offsets = [sum(layers_by_stage[:stage]) for stage in range(len(layers_by_stage) + 1)]
    last = len(layers_by_stage) - 1
    senders = [
        sender
        for sender, place in enumerate(places)
        # Rank 0 follows the signal and sends the geometry, whatever it holds.
        if sender == 0
        or (
            (layers_by_stage[place.stage] > 0 or place.stage == last)
            and sender == min(_shards(places, _of(replicas, sender), place))
        )
    ]
    place, replica = places[rank], _of(replicas, rank)
    return Layout(
        rank=rank,
        world_size=len(places),
        data_rank=replicas.index(replica),
        data_ranks=len(replicas),
        first_of_replica=rank == replica[0],
        layers=None if last == 0 else tuple(range(offsets[place.stage], offsets[place.stage + 1])),
        total_layers=offsets[-1],
        losses=place.stage == last,
        token_part=place.token_part,
        token_parts=place.token_parts,
        sender=senders.index(rank) if rank in senders else None,
        senders=len(senders),
    )


def _replicas(places: Sequence[Place]) -> list[tuple[int, ...]]:
    """Ranks joined by their peers, directly or not; ascending, by their first."""
    first = list(range(len(places)))

    def root(rank: int) -> int:
        while first[rank] != rank:
            rank = first[rank]
        return rank

    for rank, place in enumerate(places):
        for peer in place.peers:
            low, high = sorted((root(rank), root(peer)))
            first[high] = low
    roots = [root(rank) for rank in range(len(places))]
    return [tuple(r for r, its in enumerate(roots) if its == one) for one in sorted(set(roots))]


def _of(replicas: Sequence[tuple[int, ...]], rank: int) -> tuple[int, ...]:
    return next(replica for replica in replicas if rank in replica)


def _shards(places: Sequence[Place], replica: tuple[int, ...], place: Place) -> list[int]:
    """Ranks of a replica that see the same tokens in the same layers."""
    return [
        rank
        for rank in replica
        if (places[rank].stage, places[rank].token_part) == (place.stage, place.token_part)
    ]


def _layers_by_stage(places: Sequence[Place]) -> list[int]:
    if len({place.stages for place in places}) > 1:
        raise ValueError(f"processes name different pipelines: {sorted({p.stages for p in places})} stages")
    found: list[int] = []
    for stage in range(places[0].stages):
        counts = {place.routers for place in places if place.stage == stage}
        if len(counts) != 1:
            raise ValueError(
                "processes that hold the same layers must find as many routed ones among them; "
                f"in pipeline stage {stage} they found {sorted(counts)}"
            )
        found.append(counts.pop())
    return found


def _check_whole(places: Sequence[Place], replica: tuple[int, ...]) -> None:
    """Every stage and every part of the tokens must be there, as often as layers are split into shards."""
    one = places[replica[0]]
    for stage in range(one.stages):
        for token_part in range(one.token_parts):
            there = [
                rank
                for rank in replica
                if (places[rank].stage, places[rank].token_part) == (stage, token_part)
                and (places[rank].token_parts, places[rank].tensor_ranks)
                == (one.token_parts, one.tensor_ranks)
            ]
            if len(there) != one.tensor_ranks:
                raise ValueError(
                    f"ranks {list(replica)} see the same samples, but do not make up a whole: expected "
                    f"{one.tensor_ranks} of them at pipeline stage {stage} with part {token_part} of "
                    f"{one.token_parts} of the tokens, found {there}; pathwatch does not know this layout"
                )
