"""Connections that are kept between calls: which of them stay open."""

import pytest

from pathwatch.client import PathwatchError
from pathwatch.client.connections import Connections
from pathwatch.client.route import Target
from pathwatch.v1 import run_pb2


@pytest.fixture
def connections():
    kept = Connections(None)
    yield kept
    kept.close()


def is_open(connection):
    try:
        connection.runs.ListRuns.future(run_pb2.ListRunsRequest()).cancel()
    except ValueError:
        return False
    return True


def used(connections, ports):
    """The connections to these ports, each used for a moment."""
    made = []
    for port in ports:
        with connections.use(Target(f"127.0.0.2:{port}")) as connection:
            made.append(connection)
    return made


def test_of_many_those_used_lately_stay_open(connections):
    made = used(connections, range(1, 41))
    assert [is_open(connection) for connection in made] == [False] * 8 + [True] * 32
    assert used(connections, [9]) == [made[8]]
    used(connections, [41])
    assert [is_open(connection) for connection in made[8:11]] == [True, False, True]


def test_one_that_is_used_stays_open_as_long(connections):
    with connections.use(Target("127.0.0.2:50")) as connection:
        used(connections, range(1, 41))
        with connections.use(Target("127.0.0.2:50")) as same:
            assert same is connection
        used(connections, range(1, 41))
        assert is_open(connection)
    used(connections, [41])
    used(connections, range(1, 41))
    assert not is_open(connection)


def test_a_server_may_be_known_by_two_names(connections):
    with (
        connections.use(Target("127.0.0.2:1")) as own,
        connections.use(Target("127.0.0.2:1", "b:1")) as named,
    ):
        assert own is not named


def test_all_are_closed_at_the_end_and_no_more_are_made(connections):
    with connections.use(Target("127.0.0.2:1")) as connection:
        connections.close()
        assert not is_open(connection)
    with pytest.raises(PathwatchError, match="closed"), connections.use(Target("127.0.0.2:1")):
        pass
