"""What may be given as `server`, and which of several servers a run's clients ask first."""

import socket
import threading
from collections import Counter

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.client import PathwatchError
from pathwatch.client.endpoints import Endpoints

PORTS = st.sets(st.integers(1, 65535), min_size=1, max_size=12)
RUNS = st.text(st.characters(codec="utf-8"), max_size=20)


def order(addresses, run="run"):
    return list(Endpoints(",".join(addresses), run).candidates())


@given(ports=PORTS, run=RUNS, random=st.randoms())
def test_the_order_depends_on_the_set_alone(ports, run, random):
    addresses = [f"10.0.0.1:{port}" for port in ports]
    shuffled = random.sample(addresses * 2, 2 * len(addresses))
    assert order(shuffled, run) == order(addresses, run)
    assert sorted(order(addresses, run)) == sorted(addresses)


@given(ports=PORTS, run=RUNS, data=st.data())
def test_without_a_server_the_others_keep_their_order(ports, run, data):
    """So that only the runs of a server that goes move, and those to their second."""
    before = order([f"10.0.0.1:{port}" for port in ports], run)
    gone = data.draw(st.sampled_from(before))
    left = [address for address in before if address != gone]
    if left:
        assert order(left, run) == left


def test_runs_are_spread_evenly():
    addresses = [f"10.0.0.{i}:50051" for i in range(1, 6)]
    firsts = Counter(order(addresses, f"experiment-{i}")[0] for i in range(5000))
    # Each takes a fifth, 1,000 ± 28: five times that is seen once in two million.
    assert set(firsts) == set(addresses)
    assert all(abs(count - 1000) < 145 for count in firsts.values())


def test_a_plain_address_is_the_only_one():
    endpoints = Endpoints("localhost:50051", "run")
    assert (list(endpoints.candidates()), endpoints.lone) == (["localhost:50051"], "localhost:50051")
    assert Endpoints("a:1, b:2", "run").lone is None


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("sidecar", "'sidecar' is not HOST:PORT, e.g. 127.0.0.1:50051; a server is HOST:PORT, several"),
        ("a:1,b", "'b' is not HOST:PORT"),
        ("a:1,", "'' is not HOST:PORT"),
        ("dns:///sidecar", "'sidecar' is not HOST:PORT"),
        ("dns:///10.0.0.1/sidecar:1", "is not dns:///NAME:PORT"),
        ("file://shards", "the path must be absolute, as in file:///etc/pathwatch"),
    ],
)
def test_what_is_none_of_the_forms_is_refused(server, message):
    with pytest.raises(ValueError, match=message):
        Endpoints(server, "run")


def test_a_file_is_read_anew_each_time(tmp_path):
    path = tmp_path / "shards"
    endpoints = Endpoints(f"file://{path}", "run")
    with pytest.raises(PathwatchError, match=f"file of servers {path}: No such file") as raised:
        endpoints.candidates()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    path.write_text("# ours\n\na:1  # the first\n")
    assert list(endpoints.candidates()) == ["a:1"]
    path.write_text("b:2\n[::1]:3\n")
    assert sorted(endpoints.candidates()) == ["[::1]:3", "b:2"]
    path.write_text("\n")
    with pytest.raises(PathwatchError, match="names no pathwatch server") as raised:
        endpoints.candidates()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a:1\nb\n", "line 2: address 'b' is not HOST:PORT"), (b"\xff\xfe", "is no text in UTF-8")],
)
def test_a_file_that_holds_something_else_says_where(tmp_path, content, message):
    path = tmp_path / "shards"
    path.write_bytes(content)
    with pytest.raises(PathwatchError, match=f"file of servers {path}.*{message}") as raised:
        Endpoints(f"file://{path}", "run").candidates()
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def names(monkeypatch):
    """What the system's resolver knows: name → addresses."""
    known = {}

    def getaddrinfo(host, port, **asked):
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, asked["type"], 6, "", (address, 0, 0, 0))
            if ":" in address
            else (socket.AF_INET, asked["type"], 6, "", (address, 0))
            for address in known[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_a_name_is_looked_up_anew_each_time(names):
    endpoints = Endpoints("dns:///shards.example:50051", "run")
    assert endpoints.authority == "shards.example:50051"
    with pytest.raises(PathwatchError, match=r"no address of 'shards\.example': Name or service") as raised:
        endpoints.candidates()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    names["shards.example"] = ["10.0.0.1", "2001:db8::1"]
    found = list(endpoints.candidates())
    assert sorted(found) == ["10.0.0.1:50051", "[2001:db8::1]:50051"]
    assert found == order(found)
    names["shards.example"] = ["10.0.0.2"]
    assert list(endpoints.candidates()) == ["10.0.0.2:50051"]


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch):
    silent = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [] if silent.wait(60) else None)
    with pytest.raises(PathwatchError, match=r"no address of 'shards\.example': no answer within 0\.01 s"):
        Endpoints("dns:///shards.example:50051", "run").candidates(timeout=0.01)
    silent.set()


def test_the_system_s_own_resolver_is_asked():
    assert "127.0.0.1:50051" in Endpoints("dns:///localhost:50051", "run").candidates()
