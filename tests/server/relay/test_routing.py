"""Streams through a relay: what ranks hear, and what is left out of what they send."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from job import outcome
from relaying import HandRank, cut

from pathwatch.client import Client
from pathwatch.client.hashing import sample_hash
from pathwatch.client.tensors import to_tensor
from pathwatch.server.api.routing import LARGE_BYTES
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, RelayConfig
from pathwatch.server.relay import known
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, tensor_pb2

MakeBatch = Callable[..., routing_pb2.ObservationBatch]
Watermark = routing_pb2.Watermark

IDS = np.argsort(sample_hash("run", "math", np.arange(1000)))
"""Samples of the group `math` of the run `run`, those that windows want most first."""


@pytest.fixture(autouse=True)
def answers_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the server of a test is: what is left out is said exactly."""
    monkeypatch.setattr(known, "_PATIENCE_SECONDS", 60.0)


@pytest.fixture
def batch(make_batch: MakeBatch) -> MakeBatch:
    """Observations of the samples with these places in `IDS`."""

    def make(step: int, *places: int) -> routing_pb2.ObservationBatch:
        made = make_batch(step, n=len(places))
        made.sample_ids.CopyFrom(to_tensor(IDS[list(places)]))
        return made

    return make


def kept(address: str, run: str = "run") -> dict[int, list[int]]:
    """The samples of each window of `math`, by its last step, as places in `IDS`."""
    with Client(address) as client:
        client.finish_run(run)
        place = {int(sample): n for n, sample in enumerate(IDS)}
        return {
            round_.step: sorted(
                place[int(sample)] for group in round_.groups for sample in numbers(group.sample_ids)
            )
            for round_ in client.get_observations(run)
        }


def test_what_no_window_keeps_is_left_out_and_acknowledged(
    setting: Any, rank: HandRank, batch: MakeBatch
) -> None:
    setting.create()
    responses = rank.send(
        setting.through, [batch(0, 3, 1, 0, 2), batch(0, 7, 4), batch(0, 9, 0), Watermark(step=9)]
    )
    assert responses[-1].acked_sequence == 4
    assert responses[-1].accepted_observations == 8
    assert cut(setting.relay) == 3
    assert kept(setting.direct) == {9: [0, 1, 2, 3]}


def test_later_steps_of_a_kept_sample_go_on(setting: Any, rank: HandRank, batch: MakeBatch) -> None:
    setting.create()
    again = batch(5, 2, 8, 0)
    rank.send(setting.through, [batch(0, 0, 1, 2, 3), again, Watermark(step=9)])
    assert cut(setting.relay) == 1
    assert kept(setting.direct) == {9: [0, 1, 2, 3]}
    with Client(setting.direct) as client:
        (round_,) = client.get_observations("run")
    (group,) = round_.groups
    losses = dict(zip(numbers(group.sample_ids), numbers(group.losses), strict=True))
    newest = numbers(again.losses)
    assert (losses[IDS[2]], losses[IDS[0]]) == (newest[0], newest[2])


def numbers(tensor: tensor_pb2.Tensor) -> list[float]:
    """Of a tensor of losses or sample ids."""
    forms = {
        tensor_pb2.D_TYPE_INT64: "<i8",
        tensor_pb2.D_TYPE_FLOAT32: "<f4",
        tensor_pb2.D_TYPE_FLOAT64: "<f8",
    }
    numbers: list[float] = np.frombuffer(tensor.data, forms[tensor.dtype]).tolist()
    return numbers


def test_refusals_come_through_in_the_servers_words(setting: Any, make_batch: MakeBatch) -> None:
    wrong = make_batch(0)
    wrong.weights.data = wrong.weights.data[:-4]
    nameless = make_batch(1, group="")
    late = make_batch(2)
    payloads = [wrong, nameless, Watermark(step=5), late, Watermark(step=4)]
    said = []
    for run, address in (("run", setting.through), ("straight", setting.direct)):
        setting.create(run)
        answers = HandRank(run, 0, 1).send(address, payloads)
        said.append([rejection for answer in answers for rejection in answer.rejections])
    assert said[0] == said[1]
    assert [rejection.sequence for rejection in said[0]] == [1, 2, 4, 5]


def test_what_comes_too_late_is_refused_wanted_or_not(setting: Any, rank: HandRank, batch: MakeBatch) -> None:
    setting.create()
    sent = [batch(0, 0, 1, 2, 3), Watermark(step=5), batch(2, 9)]
    answers = rank.send(setting.through, sent, lambda sequence: wait(rank, sequence))
    (rejection,) = (rejection for answer in answers for rejection in answer.rejections)
    assert rejection.sequence == 3
    assert "step 2 is not above 5" in rejection.message


def test_what_a_server_refuses_leaves_nothing_out(setting: Any, batch: MakeBatch) -> None:
    """The relay cannot know that these are refused: that the rank is past their step was said elsewhere."""
    setting.create()
    ahead, honest = HandRank("run", 0, 2), HandRank("run", 1, 2)
    ahead.send(setting.direct, [Watermark(step=8)])
    elsewhere = HandRank("run", 0, 2, session="another life")

    def send_refused_first(sequence: int) -> None:
        wait(honest, sequence)
        if sequence == 2:  # both streams are open, and share what is known of the run
            answers = elsewhere.send(setting.through, [batch(3, 0, 1, 2, 3)])
            assert [rejection.sequence for answer in answers for rejection in answer.rejections] == [1]
            elsewhere.acked = 0  # as if that had not been heard: now it is known, and not refused again
            assert not any(answer.rejections for answer in elsewhere.send(setting.through, []))

    payloads = [Watermark(step=2), batch(3, 4, 5), batch(3, 6, 7), Watermark(step=9)]
    honest.insist(setting.through, payloads, send_refused_first)
    elsewhere.send(setting.through, [Watermark(step=9)])
    assert cut(setting.relay) == 0
    assert kept(setting.direct) == {9: [4, 5, 6, 7]}


def test_the_first_step_of_an_attempt_is_heard_of(setting: Any, batch: MakeBatch) -> None:
    """A rewind supersedes what came before from its first observation on, kept or not."""
    setting.create()
    first = HandRank("run", 0, 2)
    other = HandRank("run", 1, 2)
    first.send(setting.through, [batch(12, 0, 1, 2, 3), Watermark(step=15)])
    other.send(setting.through, [batch(11, 9), Watermark(step=15)])
    with Client(setting.direct) as client:
        client.register_checkpoint("run", step=11, tag="old")
        client.create_run("run", client.get_run("run").config, attempt=1)

        def early(sequence: int) -> None:
            wait(again, sequence)
            if sequence == 2:  # the window is full, of later steps
                HandRank("run", 1, 2, 1).send(setting.through, [batch(11, 8), Watermark(step=19)])

        again = HandRank("run", 0, 2, 1)
        again.insist(setting.through, [batch(12, 0, 1, 2, 3), Watermark(step=19)], early)
        assert list(client.rank_checkpoints("run")) == []


def wait(rank: HandRank, sequence: int) -> None:
    """Until all before it is acknowledged."""
    deadline = time.monotonic() + 60
    while rank.acked < sequence - 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_rank_may_go_round_the_relay_and_back(setting: Any, rank: HandRank, batch: MakeBatch) -> None:
    """Its session and sequences are the server's to know: nothing counts twice."""
    setting.create()
    rank.send(setting.through, [batch(0, 0, 1, 2, 3), batch(1, 8, 9)])
    rank.send(setting.direct, [batch(2, 1, 7)])
    rank.acked = 0  # as if nothing had been heard
    answers = rank.send(setting.through, [Watermark(step=9)])
    assert not any(answer.rejections for answer in answers)
    assert kept(setting.direct) == {9: [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"run": "none"}, grpc.StatusCode.NOT_FOUND),
        ({"run": "run", "session": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"run": "run", "world_size": 0}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_hello_that_is_refused(setting: Any, hello: dict[str, Any], code: grpc.StatusCode) -> None:
    setting.create()
    said = []
    request = routing_pb2.StreamRoutingRequest(
        hello=routing_pb2.StreamHello(**{"world_size": 1, "session": "life"} | hello)
    )
    for address in (setting.through, setting.direct):
        with grpc.insecure_channel(address) as channel:
            method = channel.stream_stream(
                "/pathwatch.v1.RoutingService/StreamRouting",
                routing_pb2.StreamRoutingRequest.SerializeToString,
                routing_pb2.StreamRoutingResponse.FromString,
            )
            with pytest.raises(grpc.RpcError) as refused:
                list(method(iter([request]), timeout=30))
            said.append((refused.value.code(), refused.value.details()))
    assert said[0] == said[1]
    assert said[0][0] is code


def test_streams_end_with_the_run(setting: Any, rank: HandRank, batch: MakeBatch) -> None:
    setting.create()

    def finish(sequence: int) -> None:
        if sequence == 2:
            with Client(setting.through) as client:
                client.finish_run("run")

    with pytest.raises(grpc.RpcError) as ended:
        rank.insist(setting.through, [batch(0, 0, 1), batch(1, 2)], finish)
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "is finished" in ended.value.details()


def test_a_run_of_that_name_that_was_made_anew_knows_nothing_of_the_former(
    setting: Any, batch: MakeBatch
) -> None:
    setting.create()
    former = HandRank("run", 0, 1)
    replaced = threading.Event()

    def replace(sequence: int) -> None:
        """While the former stream is still being told that its run is gone, another has begun."""
        wait(former, sequence)
        if sequence == 2:
            with Client(setting.through) as client:
                client.delete_run("run")
            setting.create()
            anew = HandRank("run", 0, 1, session="new")
            anew.send(setting.through, [batch(0, 5, 6, 7), Watermark(step=9)])
            replaced.set()

    with pytest.raises(grpc.RpcError):
        former.insist(setting.through, [batch(0, 0, 1, 2, 3), batch(0, 9)], replace)
    assert replaced.wait(60)
    assert kept(setting.direct) == {9: [5, 6, 7]}


def test_windows_follow_the_mode_of_the_run(setting: Any, rank: HandRank, batch: MakeBatch) -> None:
    setting.create(mode=run_pb2.OBSERVATION_MODE_PROBE, window_steps=0)
    rank.send(
        setting.through,
        [
            batch(0, 0, 1, 2, 3),
            batch(0, 9),
            Watermark(step=0),
            batch(1, 5, 6, 7, 8),
            batch(1, 9),
            Watermark(step=1),
        ],
    )
    assert cut(setting.relay) == 2
    assert kept(setting.direct) == {0: [0, 1, 2, 3], 1: [5, 6, 7, 8]}
    assert any("window 1 math" in name for name in outcome(setting.through))


def test_large_batches_are_sifted_too(setting: Any, rank: HandRank, make_batch: MakeBatch) -> None:
    setting.create()
    large = [make_batch(step, n=6000) for step in (0, 1)]
    assert large[0].ByteSize() > LARGE_BYTES
    rank.send(setting.through, [*large, Watermark(step=9)])
    assert cut(setting.relay) == 6000 - 4
    with Client(setting.direct) as client:
        assert client.get_run("run").step == 9
        client.finish_run("run")
        (round_,) = client.get_observations("run")
    smallest = np.argsort(sample_hash("run", "math", np.arange(6000)))[:4]
    assert numbers(round_.groups[0].sample_ids) == sorted(smallest.tolist())


def test_what_is_too_large_is_refused_by_the_server(
    start: Callable[..., Any], rank: HandRank, make_batch: MakeBatch
) -> None:
    limits = Limits(message_bytes=100_000)
    setting = start(limits=limits, relay_limits=limits)
    setting.create()
    answers = rank.send(setting.through, [make_batch(0, n=2500), make_batch(0, n=8), Watermark(step=9)])
    (rejection,) = (rejection for answer in answers for rejection in answer.rejections)
    assert (rejection.sequence, rejection.code) == (1, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert cut(setting.relay) == 0


def test_bounds_of_the_relay_hold(start: Callable[..., Any], make_batch: MakeBatch) -> None:
    setting = start(relay_limits=Limits(streams_per_run=1))
    setting.create()

    def second(sequence: int) -> None:
        wait(first, sequence)  # so that its stream is open
        if sequence != 2:
            return
        with pytest.raises(grpc.RpcError) as refused:
            HandRank("run", 1, 2).send(setting.through, [make_batch(0)])
        error: Any = refused.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert b"google.rpc.RetryInfo" in dict(error.trailing_metadata())["grpc-status-details-bin"]
        tried.set()

    first, tried = HandRank("run", 0, 2), threading.Event()
    first.send(setting.through, [make_batch(0), make_batch(1)], second)
    assert tried.is_set()


def test_a_stream_is_followed_to_the_server_that_has_the_run(
    setting: Any, rank: HandRank, batch: MakeBatch
) -> None:
    """Of servers that share runs; the rank hears nothing of it."""
    setting.create()
    asked = []

    class Elsewhere(routing_pb2_grpc.RoutingServiceServicer):
        def StreamRouting(self, requests: Any, context: Any) -> Any:
            asked.append(next(requests).hello.run)
            context.set_trailing_metadata((("pathwatch-owner", setting.direct),))
            context.abort(grpc.StatusCode.UNAVAILABLE, f"run 'run' is served by {setting.direct}")

    server = grpc.server(ThreadPoolExecutor(1))
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(Elsewhere(), server)
    upstream = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with BackgroundServer(RelayConfig(upstream=upstream)) as relay:
            for payload in (batch(0, 0, 1, 2, 3), Watermark(step=9)):
                rank.send(relay.grpc_address, [payload])
    finally:
        server.stop(None).wait()
    assert asked == ["run"]
    assert kept(setting.direct) == {9: [0, 1, 2, 3]}
