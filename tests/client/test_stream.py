"""The stream of a training job against a real server: delivery, order, reconnecting, refusals."""

import logging
import threading

import grpc
import numpy as np
import pytest

from pathwatch.client import Credentials, RawScores, RoutingStream
from pathwatch.client.buffer import SendBuffer
from pathwatch.client.observations import Piece
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2, tensor_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_everything_observed_arrives_as_it_was(sidecar, streams):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), size=(3, 2)).astype(np.float16)
    target_weights = weights[::-1].copy()
    stream = streams(sidecar.address, attempt=2, rank=1, world_size=4, session="life-1")
    sent = {
        "weights": weights,
        "target_weights": target_weights,
        "losses": np.array([0.5, 1.5, 2.5], np.float32),
        "sample_ids": np.array([7, 1 << 40, 9]),
    }
    stream.observe(
        step=5,
        group="math",
        token_counts=[3, 4, 5],
        target_token_counts=[1, 2, 3],
        targets=[-1, 3, 4],
        visits=[0, 1, -1],
        layers=[0, 3],
        token_part=1,
        token_parts=2,
        **sent,
    )
    kept = {name: array.copy() for name, array in sent.items()}
    for array in sent.values():
        array[...] = 0  # the caller reuses its arrays
    stream.geometry(
        step=5, gram_self=np.ones((2, 4, 4), np.float32), gram_next=np.full((1, 4, 4), 2, np.float32)
    )
    stream.watermark(5)
    assert stream.flush(60)

    hello = sidecar.hellos[0]
    assert (hello.run, hello.attempt, hello.rank, hello.world_size, hello.session) == (
        "run",
        2,
        1,
        4,
        "life-1",
    )
    assert hello.client_version
    assert sidecar.sequences() == [1, 2, 3]
    (batch,) = sidecar.received("batch")
    assert (batch.step, batch.group) == (5, "math")
    assert batch.fragment == routing_pb2.Fragment(layers=[0, 3], token_part=1, token_parts=2)
    for name, dtype in (
        ("sample_ids", np.int64),
        ("losses", np.float32),
        ("weights", np.float16),
        ("target_weights", np.float16),
    ):
        tensor = getattr(batch, name)
        assert np.array_equal(np.frombuffer(tensor.data, dtype).reshape(tensor.shape), kept[name]), name
    for name, values in (
        ("token_counts", [3, 4, 5]),
        ("target_token_counts", [1, 2, 3]),
        ("targets", [-1, 3, 4]),
        ("visits", [0, 1, -1]),
    ):
        tensor = getattr(batch, name)
        assert tensor.dtype == tensor_pb2.D_TYPE_INT32
        assert np.frombuffer(tensor.data, np.int32).tolist() == values
    (geometry,) = sidecar.received("geometry")
    assert (geometry.step, geometry.gram_self.shape, geometry.gram_next.shape) == (5, [2, 4, 4], [1, 4, 4])
    assert sidecar.received("watermark") == [routing_pb2.Watermark(step=5, dropped_observations=0)]
    assert stream.stats.sent == stream.stats.acked == 3
    assert stream.stats.buffered_bytes == 0
    assert stream.stats.connected


def test_large_observations_travel_in_pieces_of_whole_samples(sidecar, streams):
    n = 600
    weights = np.random.default_rng(0).dirichlet(np.ones(64), size=(n, 16)).astype(np.float32)
    stream = streams(sidecar.address)
    stream.observe(step=0, group="math", sample_ids=np.arange(n), weights=weights)
    assert stream.flush(60)
    pieces = sidecar.received("batch")
    assert len(pieces) > 1
    assert max(piece.ByteSize() for piece in pieces) < 300_000
    assert np.array_equal(
        np.concatenate([np.frombuffer(p.weights.data, np.float32) for p in pieces]), weights.ravel()
    )
    assert np.concatenate([np.frombuffer(p.sample_ids.data, np.int64) for p in pieces]).tolist() == list(
        range(n)
    )


def test_raw_scores_arrive_with_their_kind(sidecar, streams):
    scores = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    stream = streams(sidecar.address)
    stream.observe(
        step=1,
        group="code",
        sample_ids=[1, 2],
        raw=RawScores(
            kind=routing_pb2.SCORE_KIND_SIGMOID_LOGITS,
            scores_TLK=scores,
            lengths_N=[2, 3],
            target_mask_T=[True, False, True, True, True],
        ),
    )
    assert stream.flush(60)
    (batch,) = sidecar.received("batch")
    assert batch.WhichOneof("routing") == "raw"
    assert batch.raw.kind == routing_pb2.SCORE_KIND_SIGMOID_LOGITS
    assert batch.raw.scores.data == scores.tobytes()
    assert list(batch.raw.target_mask.data) == [1, 0, 1, 1, 1]
    assert batch.raw.target_mask.dtype == tensor_pb2.D_TYPE_UINT8


def test_a_rank_without_samples_sends_no_batch(sidecar, streams):
    stream = streams(sidecar.address)
    stream.observe(step=1, group="math", sample_ids=[], weights=np.empty((0, 2, 4), np.float32))
    stream.watermark(1)
    assert stream.flush(60)
    assert [m.WhichOneof("payload") for m in sidecar.messages] == ["watermark"]
    assert stream.stats.rejected == 0


def test_the_run_is_created_before_the_first_stream(sidecar, streams, observe):
    stream = streams(sidecar.address, config=CONFIG, attempt=3)
    observe(stream, 1)
    assert stream.flush(60)
    assert sidecar.configs[0] == run_pb2.CreateRunRequest(name="run", config=CONFIG, attempt=3)


def test_what_is_observed_while_the_sidecar_is_away_is_delivered(
    sidecar, streams, observe, eventually, caplog
):
    sidecar.stop()
    stream = streams(sidecar.address)
    for step in range(20):
        observe(stream, step)
        stream.watermark(step)
    eventually(lambda: stream.stats.last_error)
    assert not stream.stats.connected
    assert stream.stats.buffered_bytes > 0
    assert not stream.flush(0)
    sidecar.start()
    assert stream.flush(60)
    assert [batch.step for batch in sidecar.received("batch")] == list(range(20))
    assert sidecar.sequences() == list(range(1, 41))
    assert stream.stats.buffered_bytes == stream.stats.dropped_steps == stream.stats.rejected == 0
    assert [text for text in warnings(caplog) if f"no pathwatch server at {sidecar.address}" in text]


def test_an_outage_is_one_warning(sidecar, streams, eventually, caplog):
    sidecar.stop()
    caplog.set_level(logging.DEBUG, "pathwatch.client")
    streams(sidecar.address)
    eventually(lambda: sum("no pathwatch server" in r.getMessage() for r in caplog.records) >= 3)
    assert len(warnings(caplog)) == 1


def test_unacknowledged_messages_are_sent_again_under_the_same_sequences(
    sidecar, streams, observe, eventually
):
    sidecar.acks = False
    stream = streams(sidecar.address)
    for step in range(3):
        observe(stream, step)
    eventually(lambda: len(sidecar.messages) == 3)
    sidecar.stop()
    eventually(lambda: not stream.stats.connected)  # else it may send the next one to nobody first
    sidecar.acks = True
    sidecar.start()
    observe(stream, 3)
    assert stream.flush(60)
    assert sidecar.sequences() == [1, 2, 3, 1, 2, 3, 4]
    assert len({m.SerializeToString(deterministic=True) for m in sidecar.messages}) == 4
    assert len({hello.session for hello in sidecar.hellos}) == 1
    assert stream.stats.reconnects == 1
    assert (stream.stats.sent, stream.stats.acked) == (7, 4)


@pytest.mark.slow
def test_a_server_that_breaks_again_and_again_gets_everything_in_order(sidecar, streams, observe, eventually):
    sidecar.acks = True
    sidecar.drop_after = 3
    stream = streams(sidecar.address)
    for step in range(8):
        observe(stream, step)
    assert stream.flush(60)
    first_seen = list(dict.fromkeys(sidecar.sequences()))
    assert first_seen == list(range(1, 9))
    assert [batch.step for batch in sidecar.received("batch")] == list(range(8))
    assert stream.stats.reconnects >= 2


def test_a_new_server_without_memory_is_told_what_was_not_acknowledged(sidecar, streams, observe, eventually):
    stream = streams(sidecar.address)
    observe(stream, 0)
    assert stream.flush(60)
    sidecar.stop()
    sidecar.messages.clear()
    observe(stream, 1)
    sidecar.start()
    assert stream.flush(60)
    assert sidecar.sequences() == [2]


def test_checkpoints_keep_their_place_among_the_messages(sidecar, streams, observe):
    stream = streams(sidecar.address, attempt=1)
    for step in range(5):
        observe(stream, step)
        stream.register_checkpoint(step=step, tag=f"ckpt-{step}")
        stream.watermark(step)
    assert stream.flush(60)
    assert sidecar.events == [f"{kind} {step}" for step in range(5) for kind in ("checkpoint", "watermark")]
    assert sidecar.checkpoints[4] == run_pb2.RegisterCheckpointRequest(
        run="run", checkpoint=run_pb2.Checkpoint(step=4, tag="ckpt-4", attempt=1)
    )


@pytest.mark.slow
def test_a_checkpoint_is_tried_again(sidecar, streams):
    sidecar.checkpoint_refusals = [(grpc.StatusCode.UNAVAILABLE, "busy")] * 2
    stream = streams(sidecar.address)
    stream.register_checkpoint(step=3, tag="a")
    stream.watermark(3)
    assert stream.flush(60)
    assert sidecar.events == ["checkpoint 3", "watermark 3"]


def test_a_refused_checkpoint_is_let_go(sidecar, streams, caplog):
    sidecar.checkpoint_refusals = [(grpc.StatusCode.FAILED_PRECONDITION, "run 'run' is finished")]
    stream = streams(sidecar.address)
    stream.register_checkpoint(step=3, tag="a")
    assert stream.flush(60)
    assert stream.stats.rejected == 1
    assert sidecar.checkpoints == []
    assert "run 'run' is finished" in warnings(caplog)[0]


def test_a_rejection_is_counted_said_once_and_not_sent_again(sidecar, streams, observe, caplog):
    sidecar.rejections["batch"] = routing_pb2.Rejection(
        code=3, field="batch.weights", message="row sums to 2", sample_id=11
    )
    stream = streams(sidecar.address)
    for step in range(4):
        observe(stream, step)
        stream.watermark(step)
    assert stream.flush(60)
    assert sidecar.sequences() == list(range(1, 9))
    assert stream.stats.rejected == 4
    assert stream.stats.acked == 8
    (text,) = warnings(caplog)
    assert "batch.weights: row sums to 2 (sample 11)" in text


@pytest.mark.parametrize("refused_by", ["the server", "its limit", "its encoding"])
def test_what_is_refused_is_counted_when_flush_returns(sidecar, streams, observe, monkeypatch, refused_by):
    sidecar.stop()
    sidecar.options = [("grpc.max_receive_message_length", 100_000)] if refused_by == "its limit" else []
    sidecar.start()
    if refused_by == "the server":
        sidecar.rejections["batch"] = routing_pb2.Rejection(field="batch.weights", message="row sums to 2")
    elif refused_by == "its encoding":
        monkeypatch.setattr(Piece, "request", lambda self: 1 / 0)
    counted = threading.Event()

    def late(method):
        """Whoever settles a message is slow to go on, until the count was read."""

        def settle(self, *arguments):
            settled = method(self, *arguments)
            if settled != [] and self.wait_empty(0):
                counted.wait(60)
            return settled

        return settle

    for name in ("acknowledge", "discard", "limit"):
        monkeypatch.setattr(SendBuffer, name, late(getattr(SendBuffer, name)))
    stream = streams(sidecar.address)
    observe(stream, 1, n=3000)
    assert stream.flush(60)
    rejected = stream.stats.rejected
    counted.set()
    assert rejected == 1


def test_a_message_over_the_server_s_limit_does_not_hold_up_the_others(sidecar, streams, observe, caplog):
    sidecar.stop()
    sidecar.options = [("grpc.max_receive_message_length", 100_000)]
    sidecar.start()
    stream = streams(sidecar.address)
    big = np.zeros((2, 128, 128), np.float32)
    observe(stream, 1)
    stream.geometry(step=1, gram_self=big, gram_next=big[:1])
    stream.watermark(1)
    assert stream.flush(60)
    stream.geometry(step=2, gram_self=big, gram_next=big[:1])  # the limit is known by now
    stream.watermark(2)
    assert stream.flush(60)
    assert [m.WhichOneof("payload") for m in sidecar.messages if m.sequence != 1] == [
        "watermark",
        "watermark",
    ]
    assert len(sidecar.received("batch")) == 1
    assert stream.stats.rejected == 2
    assert stream.stats.reconnects == 1
    assert any("100000" in text for text in warnings(caplog))


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.NOT_FOUND, "no run 'run'; create it first"),
        (grpc.StatusCode.INVALID_ARGUMENT, "hello.world_size is 0"),
        (grpc.StatusCode.UNAUTHENTICATED, "no token"),
        (grpc.StatusCode.PERMISSION_DENIED, "token lacks the scope ingest"),
        (grpc.StatusCode.FAILED_PRECONDITION, "attempt 0 is stale"),
    ],
)
def test_a_refused_stream_warns_once_keeps_all_and_recovers(
    sidecar, streams, observe, eventually, waits, caplog, code, details
):
    sidecar.refusal = (code, details)
    stream = streams(sidecar.address)
    observe(stream, 1)
    eventually(lambda: len(sidecar.hello_times) >= 2)
    (text,) = warnings(caplog)
    assert details in text
    assert stream.stats.last_error == details
    assert {refused for _, refused in waits} == {True}  # longer than after a lost connection
    sidecar.refusal = None
    assert stream.flush(60)
    assert len(sidecar.received("batch")) == 1


@pytest.fixture
def in_a_while():
    """Metadata that asks to wait for half a second."""
    # google.rpc.Status{details: [Any{RetryInfo{retry_delay: 0.5 s}}]}, encoded by hand.
    duration = b"\x10\x80\xca\xb5\xee\x01"
    retry_info = b"\x0a" + bytes([len(duration)]) + duration
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    detail = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(retry_info)]) + retry_info
    status = b"\x08\x08\x12\x04full\x1a" + bytes([len(detail)]) + detail
    return (("grpc-status-details-bin", status),)


def test_the_delay_a_server_asks_for_is_kept(sidecar, streams, observe, eventually, waits, in_a_while):
    sidecar.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    sidecar.refusal_metadata = in_a_while
    streams(sidecar.address)
    eventually(lambda: len(sidecar.hello_times) >= 2)
    assert sidecar.hello_times[1] - sidecar.hello_times[0] >= 0.5


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_refused_checkpoint_says_why_and_waits_as_long_as_it_is_asked_to(
    sidecar, streams, waits, caplog, in_a_while, code
):
    sidecar.checkpoint_refusals = [(code, "not this one")]
    sidecar.refusal_metadata = in_a_while
    stream = streams(sidecar.address)
    stream.register_checkpoint(step=1, tag="one")
    stream.watermark(2)
    assert stream.flush(60)
    assert sidecar.events == ["checkpoint 1", "watermark 2"]
    assert stream.stats.last_error == "not this one"
    assert "not this one" in caplog.text
    assert sidecar.hello_times[1] - sidecar.hello_times[0] >= 0.5


def test_advice_is_kept_per_group(sidecar, streams, observe, eventually):
    sidecar.advice = [
        routing_pb2.SamplingAdvice(group="math", until_step=9, hash_threshold=1 << 63),
        routing_pb2.SamplingAdvice(group="code", until_step=9, hash_threshold=5),
    ]
    stream = streams(sidecar.address)
    assert stream.advice == {}
    observe(stream, 1)
    assert stream.flush(60)
    assert eventually(lambda: stream.advice) == {"math": 1 << 63, "code": 5}


def test_signals_are_followed_across_restarts(sidecar, streams, eventually):
    stream = streams(sidecar.address, watch=True)
    assert stream.signal is None
    sidecar.give(signal_pb2.Signal(run="run", step=1, action=signal_pb2.ACTION_CONTINUE, revision=1))
    eventually(lambda: stream.signal is not None and stream.signal.revision == 1)
    sidecar.stop()
    assert stream.signal.revision == 1
    sidecar.give(
        signal_pb2.Signal(run="run", step=2, action=signal_pb2.ACTION_STOP, stop_at_step=9, revision=2)
    )
    sidecar.start()
    eventually(lambda: stream.signal.revision == 2)
    assert stream.signal.stop_at_step == 9


def test_malformed_arguments_are_counted_never_raised(sidecar, streams, observe, caplog):
    stream = streams(sidecar.address)
    good = np.full((2, 2, 4), 0.25, np.float32)
    ids = np.arange(2)
    stream.observe(step=1, group="math", sample_ids=ids)
    stream.observe(step=1, group="math", sample_ids=ids, weights=good[0])
    stream.observe(step=1, group="math", sample_ids=ids, weights=good, losses=[1.0])
    stream.observe(step=1, group="math", sample_ids=ids + 0.5, weights=good)
    stream.observe(step=1, group="math", sample_ids=ids, weights=good, visits=[0, 1 << 40])
    stream.observe(step=1, group="math", sample_ids=ids, weights=good, target_weights=good[:, :1])
    stream.observe(step=1, group="math", sample_ids=ids, weights=good.astype(np.complex64))
    stream.observe(step=-1, group="math", sample_ids=ids, weights=good)
    stream.observe(step=1, group="", sample_ids=ids, weights=good)
    stream.observe(step=1, group=None, sample_ids=ids, weights=good)
    stream.observe(step=1, group="math", sample_ids=ids, weights=good, layers=[-1])
    stream.observe(step="one", group="math", sample_ids=ids, weights=object())
    stream.geometry(step=1, gram_self=np.ones((2, 4, 4)), gram_next=np.ones((2, 4, 4)))
    stream.watermark(-1)
    stream.watermark(None)
    stream.register_checkpoint(step=None, tag="x")
    stream.register_checkpoint(step=1, tag=None)
    assert stream.stats.rejected == 17
    assert stream.stats.buffered_bytes == 0
    assert "give exactly one of weights and raw" in warnings(caplog)[0]
    observe(stream, 1)
    assert stream.flush(60)
    assert len(sidecar.messages) == 1


def test_many_threads_may_observe_at_once(sidecar, streams, observe):
    stream = streams(sidecar.address)

    def work(group: str) -> None:
        for step in range(50):
            observe(stream, step, group=group)

    threads = [threading.Thread(target=work, args=(f"group-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.flush(60)
    assert sorted(sidecar.sequences()) == list(range(1, 201))
    arrived = {(batch.group, batch.step) for batch in sidecar.received("batch")}
    assert arrived == {(f"group-{i}", step) for i in range(4) for step in range(50)}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:1", "not an address", "10.0.0.1:1"])
def test_an_address_that_cannot_be_reached_never_raises(address, observe, eventually):
    stream = RoutingStream(address, run="run", config=CONFIG, watch=True)
    for step in range(100):
        observe(stream, step)
        stream.watermark(step)
    stream.register_checkpoint(step=1, tag="x")
    eventually(lambda: stream.stats.last_error)
    assert stream.stats.buffered_bytes > 0
    assert stream.signal is None
    stream.close(timeout=1)


def test_wrong_credentials_never_raise(streams, eventually):
    stream = streams("10.0.0.1:1", credentials=Credentials(root_ca="/nowhere.pem"))
    assert "/nowhere.pem" in eventually(lambda: stream.stats.last_error)
