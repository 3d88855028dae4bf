"""StreamRouting as a rank sees it."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

Code = grpc.StatusCode


def watermark(step: int) -> routing_pb2.Watermark:
    return routing_pb2.Watermark(step=step)


def test_from_observation_to_verdict(service: Any, make_batch: Any, eventually: Any) -> None:
    service.create()
    stream = service.stream()
    stream.hello()
    for step in range(3):
        stream.send(make_batch(step, dtype=np.float16))
        last = stream.send(watermark(step))
    assert stream.await_ack(last) == []
    assert stream.responses[-1].accepted_observations == 24
    eventually(lambda: service.get().closed_step == 2)
    metrics = service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run"))
    assert [window.step for window in metrics.windows] == [0, 1, 2]
    assert metrics.windows[0].metrics["window_samples"] == 8
    assert metrics.closed_step == 2
    stream.finish()
    assert stream.call.code() is Code.OK


@pytest.mark.parametrize(
    ("hello", "code", "words"),
    [
        ({"run": "nobody"}, Code.NOT_FOUND, "no run 'nobody'"),
        ({"world_size": 0}, Code.INVALID_ARGUMENT, "hello.world_size"),
        ({"rank": 1}, Code.INVALID_ARGUMENT, "hello.rank"),
        ({"session": ""}, Code.INVALID_ARGUMENT, "hello.session"),
        ({"attempt": 0}, Code.FAILED_PRECONDITION, "attempt 0 of run 'run' is over"),
        ({"run": "done"}, Code.FAILED_PRECONDITION, "finished"),
    ],
)
def test_a_hello_that_cannot_be(service: Any, hello: dict[str, Any], code: Code, words: str) -> None:
    service.create()
    service.create("done")
    service.runs.FinishRun(run_pb2.FinishRunRequest(name="done"))
    service.runs.CreateRun(
        run_pb2.CreateRunRequest(
            name="run", config=run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)), attempt=1
        )
    )
    stream = service.stream()
    stream.hello(**({"attempt": 1} | hello))
    error = stream.error()
    assert error.code() is code
    assert words in error.details()


def test_the_first_message_must_introduce(service: Any, make_batch: Any) -> None:
    service.create()
    stream = service.stream()
    stream.send(make_batch(1))
    error = stream.error()
    assert (error.code(), "introduces" in error.details()) == (Code.INVALID_ARGUMENT, True)


def test_what_is_wrong_is_refused_and_the_stream_goes_on(
    service: Any, make_batch: Any, eventually: Any
) -> None:
    service.create()
    stream = service.stream()
    stream.hello()
    nan = make_batch(1)
    weights_NLK = np.full((8, 2, 4), 0.25, np.float32)
    weights_NLK[3, 1, 0] = np.nan
    nan.weights.CopyFrom(to_tensor(weights_NLK))
    below = make_batch(1)
    below.step = -1
    bad = [
        stream.send(nan),
        stream.send(make_batch(1, experts=5)),
        stream.send(below),
        stream.send(None),
        stream.send(routing_pb2.StreamHello(run="run", world_size=1, session="life"), sequence=5),
        stream.send(watermark(-5), sequence=6),
        stream.send(routing_pb2.ExpertGeometry(step=1), sequence=7),
    ]
    good = stream.send(make_batch(1, "code"), sequence=8)
    rejections = stream.await_ack(good)
    assert [rejection.sequence for rejection in rejections] == bad
    assert [rejection.code for rejection in rejections] == [Code.INVALID_ARGUMENT.value[0]] * len(bad)
    assert [rejection.field for rejection in rejections] == [
        "batch.weights",
        "batch.weights",
        "batch.step",
        "payload",
        "hello",
        "watermark.step",
        "geometry.gram_self",
    ]
    assert rejections[0].sample_id == 3
    assert "sample 3, layer 1 has NaN" in rejections[0].message
    assert not rejections[1].HasField("sample_id")
    assert list(service.get().groups) == ["code"]
    stream.send(watermark(1), sequence=9)
    eventually(lambda: service.get().closed_step == 1)
    (window,) = service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run")).windows
    assert (window.group, window.metrics["window_samples"]) == ("code", 8)


def test_a_message_over_the_limit_is_refused_and_the_stream_goes_on(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(message_bytes=10_000))
    service.create()
    stream = service.stream()
    stream.hello()
    large = stream.send(make_batch(1, n=300))
    good = stream.send(make_batch(1, n=8))
    (rejection,) = stream.await_ack(good)
    assert (rejection.sequence, rejection.code) == (large, Code.RESOURCE_EXHAUSTED.value[0])
    assert "at most 10000" in rejection.message
    assert stream.responses[-1].accepted_observations == 8


def test_groups_over_the_limit(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(groups_per_run=1))
    service.create()
    stream = service.stream()
    stream.hello()
    stream.send(make_batch(1, "a"))
    stream.send(make_batch(1, "b"))
    last = stream.send(make_batch(1, "a", first_id=50))
    (rejection,) = stream.await_ack(last)
    assert (rejection.field, rejection.code) == ("batch.group", Code.RESOURCE_EXHAUSTED.value[0])
    assert stream.responses[-1].accepted_observations == 16


def test_streams_over_the_limit_are_told_when_to_come_back(
    serve: Any, make_batch: Any, eventually: Any
) -> None:
    service = serve(Limits(streams=1))
    service.create()
    first = service.stream()
    first.hello()
    last = first.send(make_batch(1))
    first.await_ack(last)
    second = service.stream()
    second.hello()
    error = second.error()
    assert error.code() is Code.RESOURCE_EXHAUSTED
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert b"google.rpc.RetryInfo" in details
    first.finish()

    def third_is_taken() -> bool:
        third = service.stream()
        third.hello()
        try:
            third.finish()
        except grpc.RpcError:
            return False
        return True

    eventually(third_is_taken)


def test_the_client_understands_the_delay(serve: Any) -> None:
    from pathwatch.client.retry_info import retry_delay

    service = serve(Limits(runs=1))
    service.create()
    with pytest.raises(grpc.RpcError) as error:
        service.create("other")
    assert 60 <= retry_delay(error.value) <= 90


def test_raw_scores_reach_the_metrics(service: Any, eventually: Any) -> None:
    service.create()
    stream = service.stream()
    stream.hello()
    raw = routing_pb2.RawScores(
        kind=routing_pb2.SCORE_KIND_SOFTMAX_LOGITS,
        scores=to_tensor(np.zeros((20, 2, 4), np.float16)),
        lengths=to_tensor(np.full(10, 2, np.int32)),
    )
    stream.send(routing_pb2.ObservationBatch(step=1, group="g", sample_ids=to_tensor(np.arange(10)), raw=raw))
    last = stream.send(watermark(1))
    assert stream.await_ack(last) == []
    eventually(lambda: service.get().closed_step == 1)
    (window,) = service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run")).windows
    assert window.metrics["routing_entropy"] == pytest.approx(np.log(4))


def test_large_messages_keep_their_place(service: Any, make_batch: Any) -> None:
    """Large batches are decoded elsewhere; a small watermark behind one must not overtake it."""
    service.create()
    stream = service.stream()
    stream.hello()
    for step in range(1, 9):
        stream.send(make_batch(step, n=6000))
        last = stream.send(watermark(step))
    assert stream.await_ack(last) == []
    assert stream.responses[-1].accepted_observations == 48_000


@pytest.mark.slow
def test_what_ends_a_stream_is_told_whenever_acknowledgements_come(service: Any) -> None:
    """The last acknowledgement and a message that cannot be parsed at once: the call never ends well."""
    service.create()
    method = service.channel.stream_stream(
        "/pathwatch.v1.RoutingService/StreamRouting",
        response_deserializer=routing_pb2.StreamRoutingResponse.FromString,
    )
    for life in range(300):
        hello = routing_pb2.StreamHello(run="run", world_size=1, session=f"life-{life}")
        watermark = routing_pb2.Watermark(step=life)
        requests = [
            routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString(),
            routing_pb2.StreamRoutingRequest(sequence=1, watermark=watermark).SerializeToString(),
            b"\xff" * 10,
        ]
        with pytest.raises(grpc.RpcError) as refused:
            list(method(iter(requests), timeout=30))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
