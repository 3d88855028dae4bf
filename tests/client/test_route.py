"""Which server is gone to next, by what became of the attempts before."""

from types import SimpleNamespace

import grpc
import pytest

from pathwatch.client import route
from pathwatch.client.route import Route, Target


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test moves on."""
    now = [100.0]
    monkeypatch.setattr(route, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def servers(tmp_path):
    """A route among three servers, and they in its order."""
    path = tmp_path / "servers"
    path.write_text("a:1\nb:1\nc:1\n")
    asked = Route(f"file://{path}", "run")
    return asked, [asked.next().address] + [lost(asked) for _ in range(2)]


def lost(asked, owner="", **how):
    """Address after an attempt that was lost."""
    asked.lost(owner, **how)
    return asked.next().address


def test_each_is_asked_once_before_any_is_asked_again(servers):
    asked, order = servers
    assert sorted(order) == ["a:1", "b:1", "c:1"]
    asked.lost()
    assert asked.exhausted
    assert asked.next().address == order[0]
    asked.lost()
    assert not asked.exhausted


def test_where_it_was_served_is_asked_first_and_the_others_in_their_order(servers):
    asked, order = servers
    asked.served()
    assert [lost(asked) for _ in range(3)] == [order[2], order[0], order[1]]


def test_a_server_that_cannot_be_reached_at_once_is_left_alone_for_as_long_as_that_took(servers, clock):
    """A machine that is gone answers nothing: the others must be asked often meanwhile."""
    asked, order = servers
    assert lost(asked) == order[0]
    assert lost(asked, seconds=3.0) == order[1]
    assert lost(asked, order[0]) == order[2]  # of which the others go on to say that it has the run
    assert not asked.follows
    assert [lost(asked) for _ in range(3)] == [order[1], order[2], order[1]]
    clock[0] += 4
    assert order[0] in [lost(asked) for _ in range(3)]


def test_a_server_that_served_and_fell_silent_is_not_the_next(servers, clock):
    asked, order = servers
    asked.served()
    assert lost(asked, silent=True) == order[0]
    assert lost(asked, order[2]) == order[1]
    clock[0] += 6
    assert lost(asked, order[2]) == order[2]


def test_a_few_hops_are_made_at_once(servers):
    asked, _ = servers
    hops = 0
    for hop in range(10):
        asked.lost(f"other-{hop}:1")
        if not asked.follows:
            break
        hops += 1
        assert asked.next().address == f"other-{hop}:1"
    assert hops == 4


def test_a_server_that_names_itself_names_nobody(servers):
    asked, order = servers
    assert lost(asked, order[2]) == order[0]
    assert not asked.follows


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_after_a_refusal_the_same_server_is_asked_again(servers, code):
    asked, order = servers
    assert asked.refused(code)
    assert asked.exhausted
    assert asked.next().address == order[2]
    assert not asked.refused(grpc.StatusCode.UNAVAILABLE)


def test_connecting_takes_its_time_only_where_there_is_nobody_else():
    alone = Route("a:1", "run")
    assert alone.next() == Target("a:1", None, None)
    alone.lost("b:1")
    assert alone.next() == Target("b:1", None, 5.0)
    assert alone.several


def test_a_route_may_begin_where_another_ended():
    asked = Route("a:1", "run", start=Target("b:1"))
    assert asked.next().address == "b:1"
    asked.lost()
    assert not asked.exhausted
    assert asked.next().address == "a:1"
