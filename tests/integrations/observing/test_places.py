"""From what each process knows of itself to who sends what."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.observing import Layout, Place
from pathwatch.integrations.observing.places import layout_of

Coordinates = tuple[int, int, int, int]  # replica, stage, token part, shard


@st.composite
def jobs(draw: st.DrawFn) -> tuple[list[Coordinates], list[int], list[Place]]:
    """A job of any shape: coordinates of its ranks, routed layers of its stages, what each rank knows."""
    replicas, parts, shards = (draw(st.integers(1, 3)) for _ in range(3))
    layers = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    ranks = list(itertools.product(range(replicas), range(len(layers)), range(parts), range(shards)))
    axes = draw(st.permutations(range(4)))
    ranks.sort(key=lambda one: [one[axis] for axis in axes])

    def line(rank: int, axis: int) -> list[int]:
        """Ranks that differ from this one along one axis only, itself included: a process group."""
        return [
            other
            for other, one in enumerate(ranks)
            if all(one[i] == ranks[rank][i] for i in range(4) if i != axis)
        ]

    places = [
        Place(
            peers=tuple(sorted({other for axis in (1, 2, 3) for other in line(rank, axis)})),
            routers=layers[stage],
            stage=stage,
            stages=len(layers),
            token_part=part,
            token_parts=parts,
            tensor_ranks=shards,
        )
        for rank, (_, stage, part, _) in enumerate(ranks)
    ]
    return ranks, layers, places


@given(job=jobs())
def test_every_part_of_every_sample_is_sent_once(
    job: tuple[list[Coordinates], list[int], list[Place]],
) -> None:
    ranks, layers, places = job
    layouts = [layout_of(places, rank) for rank in range(len(places))]
    sent = [
        (layout.data_rank, layer, layout.token_part)
        for layout in layouts
        if layout.observes
        for layer in (range(sum(layers)) if layout.layers is None else layout.layers)
    ]
    replicas, parts = 1 + max(one[0] for one in ranks), 1 + max(one[2] for one in ranks)
    assert sorted(sent) == sorted(itertools.product(range(replicas), range(sum(layers)), range(parts)))
    losses = [(one.data_rank, one.token_part) for one in layouts if one.observes and one.losses]
    assert sorted(losses) == sorted(itertools.product(range(replicas), range(parts)))


@given(job=jobs())
def test_replicas_and_senders_are_counted(job: tuple[list[Coordinates], list[int], list[Place]]) -> None:
    ranks, layers, places = job
    layouts = [layout_of(places, rank) for rank in range(len(places))]
    for (one, layout), (other, its) in itertools.combinations(zip(ranks, layouts, strict=True), 2):
        assert (one[0] == other[0]) == (layout.data_rank == its.data_rank)
    assert {layout.data_rank for layout in layouts} == set(range(layouts[0].data_ranks))
    assert sum(layout.first_of_replica for layout in layouts) == layouts[0].data_ranks
    senders = [layout.sender for layout in layouts if layout.sender is not None]
    assert senders == list(range(layouts[0].senders))
    assert layouts[0].sender == 0
    assert {layout.total_layers for layout in layouts} == {sum(layers)}


@given(job=jobs(), rng=st.randoms(use_true_random=False))
def test_what_is_not_whole_is_refused(
    job: tuple[list[Coordinates], list[int], list[Place]], rng: Random
) -> None:
    """A process that names itself in another place than its own, or finds other layers than those like it."""
    ranks, _, places = job
    rank = rng.randrange(len(places))
    changes: list[Place] = []
    if places[rank].token_parts > 1:
        changes.append(
            replace(places[rank], token_part=(places[rank].token_part + 1) % places[rank].token_parts)
        )
    if sum(one[1] == ranks[rank][1] for one in ranks) > 1:
        changes.append(replace(places[rank], routers=places[rank].routers + 1))
    if len(places) > 1:
        changes.append(replace(places[rank], stages=places[rank].stages + 1))
    for change in changes:
        with pytest.raises(ValueError, match=r"make up a whole|different pipelines|as many routed"):
            layout_of([*places[:rank], change, *places[rank + 1 :]], 0)


def test_ranks_that_see_the_same_samples_unknowingly_are_refused() -> None:
    """Four processes, joined two by two, of which one pair claims to be split in four."""
    pair = [Place(peers=(0, 1), routers=2, tensor_ranks=4)] * 2
    with pytest.raises(ValueError, match="do not make up a whole"):
        layout_of(pair, 0)


def test_a_single_process_is_the_whole_job() -> None:
    assert layout_of([Place(peers=(0,), routers=3)], 0) == Layout(total_layers=3)
