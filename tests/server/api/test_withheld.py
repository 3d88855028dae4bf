"""A rank that holds observations back is answered, whatever it says that they are of."""

from __future__ import annotations

from typing import Any

import pytest

from pathwatch.server.config import Limits
from pathwatch.v1 import routing_pb2, run_pb2

ALL = 2**64 - 1


def report(groups: dict[str, int], round_: int = 0) -> routing_pb2.Withheld:
    held = [routing_pb2.WithheldGroup(group=group, samples=samples) for group, samples in groups.items()]
    return routing_pb2.Withheld(step=1, until_step=1, round=round_, groups=held)


def joined(service: Any, ranks: int) -> list[Any]:
    service.create(mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=2, capacity=4)
    streams = [service.stream() for _ in range(ranks)]
    for rank, stream in enumerate(streams):
        stream.hello(rank=rank, world_size=ranks)
        next(stream.call)  # the plan
    return streams


def asked(stream: Any) -> list[routing_pb2.SampleRequest]:
    """What the rank is asked for next, of its window."""
    for response in stream.call:
        assert list(response.rejections) == []
        if requests := [request for request in response.requests if request.HasField("until_step")]:
            return requests
    raise AssertionError("the stream ended")


def test_more_groups_than_a_run_may_have_are_asked_for_in_turn(serve: Any) -> None:
    (stream,) = joined(serve(Limits(groups_per_run=1)), 1)
    stream.send(report({"a": 9, "b": 9}))
    assert [(request.group, request.round) for request in asked(stream)] == [("a", 1)]
    stream.send(report({"b": 9}, round_=1))
    assert ("b", 2) in [(request.group, request.round) for request in asked(stream)]


def test_a_group_without_a_name_is_refused_and_stands_for_no_other(service: Any) -> None:
    ranks = joined(service, 2)
    ranks[1].send(report({"": 2**32 - 1}))
    (rejection,) = next(ranks[1].call).rejections
    assert (rejection.sequence, rejection.field) == (0, "withheld.groups")
    assert "name the data group" in rejection.message
    for rank in ranks:
        rank.send(report({"a": 1000}))
    for rank in ranks:
        assert [(request.group, request.round) for request in asked(rank)] == [("a", 1)]


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb"], ids=["too long", "not printable"])
def test_a_name_that_no_group_can_have_is_told_to_nobody(service: Any, name: str) -> None:
    ranks = joined(service, 2)
    ranks[1].send(report({name: 9, "a": 1000}))
    (request,) = asked(ranks[1])
    assert (request.group, request.through) == ("", ALL), "what cannot be taken is refused when it comes"
    ranks[0].send(report({"a": 1000}))
    assert [request.group for request in asked(ranks[0])] == ["a"]
