"""Real clients, a server in a process of its own, and between them a network that cuts, stalls and vanishes.

A run comes to what the definitions make of what was sent, and to what an undisturbed server says.
"""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from chaos_proxy import ChaosProxy
from delivery_oracle import Oracle, judgement_said, said, signal_said
from histories import drawn
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sample_pieces import CAPACITY, EXPERTS, LAYERS, Piece, by_envelope, column, cut, geometry_of, message
from server_process import ServerProcess

from pathwatch.client import Client, RoutingStream
from pathwatch.client.tensors import from_tensor
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, ServerConfig
from pathwatch.server.engine.decode import Topology, decode_geometry
from pathwatch.server.engine.run_config import with_defaults
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, signal_pb2

WINDOW = 4
TIMEOUT = 60.0
SAMPLES = st.tuples(
    st.sampled_from(["code", "math"]),
    st.integers(-2, 6),  # sample
    st.sampled_from([1, 2]),  # token parts
    st.sampled_from([None, 1]),  # where layers are cut
)
STEPS = st.tuples(
    st.integers(1, WINDOW),  # after the one before
    st.lists(SAMPLES, min_size=1, max_size=6, unique_by=lambda sample: sample[:2]),
    st.booleans(),  # whether router geometry is sent
)

A_STEP = (1, [("math", 0, 1, None)], True)


Sent = tuple[Piece, ...] | routing_pb2.ExpertGeometry | Checkpoint | int
"""What a rank sends; an integer is a watermark."""


@dataclass
class Rank:
    number: int
    session: str
    stream: RoutingStream
    log: list[Sent] = field(default_factory=list)

    def send(self, sent: Sent) -> None:
        self.log.append(sent)
        deliver(self.stream, sent)


@dataclass
class Attempt:
    number: int
    step: int
    ranks: list[Rank] = field(default_factory=list)


class RealDelivery(RuleBasedStateMachine):
    """Every rule does something to the job, the network or the server; clients and server mend it."""

    @initialize(stream=st.booleans(), world_size=st.integers(2, 3))
    def begin(self, stream: bool, world_size: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.config = run_pb2.RunConfig(
            topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
            mode=run_pb2.OBSERVATION_MODE_STREAM if stream else run_pb2.OBSERVATION_MODE_PROBE,
            window_steps=WINDOW if stream else 0,
            capacity=CAPACITY,
            grace_seconds=3600,
        )
        self.server = ServerProcess(self.folder / "disturbed")
        self.proxy = ChaosProxy(self.server.address)
        self.proxy.__enter__()
        self.attempts: list[Attempt] = []
        self.start_attempt(world_size, -1)

    # What the job does.

    @rule(steps=st.lists(STEPS, min_size=1, max_size=3))
    def train(self, steps: list[Any]) -> None:
        attempt = self.attempts[-1]
        for gap, samples, geometry in steps:
            step = attempt.step = attempt.step + gap
            shares: list[list[Piece]] = [[] for _ in attempt.ranks]
            for group, sample, token_parts, layer_cut in samples:
                key = group, step, sample
                chance = Random(repr((attempt.number, key)))  # noqa: S311
                pieces = cut(key, chance, token_parts=token_parts, layer_cut=layer_cut, lost=False)
                for i, piece in enumerate(pieces):
                    shares[(i + sample) % len(shares)].append(piece)
            for rank, share in zip(attempt.ranks, shares, strict=True):
                for together in by_envelope(share):
                    rank.send(tuple(together))
                if geometry and rank.number == 0:
                    rank.send(geometry_of(attempt.number, step))
                if rank.number == 0:
                    rank.send(Checkpoint(step=step, tag="", attempt=attempt.number))
                rank.send(step)

    @rule(back=st.integers(0, 8), world_size=st.integers(2, 3))
    def restart_job(self, back: int, world_size: int) -> None:
        """The job goes back some steps, or none. What the old ranks still send is refused."""
        self.calm()
        old = self.attempts[-1]
        for rank in old.ranks:
            assert rank.stream.flush(TIMEOUT)
        self.start_attempt(world_size, max(-1, old.step - back))
        self.train([A_STEP])
        for rank in self.attempts[-1].ranks:
            assert rank.stream.flush(TIMEOUT)
        stale = old.ranks[0].stream
        stale.watermark(old.step + 100)
        stale.close(0.5)

    @rule(rank=st.integers(0, 2), again=st.booleans())
    def repeat(self, rank: int, again: bool) -> None:
        """All that a rank has sent comes once more: under its own session and sequences, or a new one's."""
        self.calm()
        attempt = self.attempts[-1]
        one = attempt.ranks[rank % len(attempt.ranks)]
        if not one.log:
            return  # nothing is there to repeat, and perhaps no run yet: the first stream to connect makes it
        assert one.stream.flush(TIMEOUT)
        repeat_raw(
            self.proxy.address,
            routing_pb2.StreamHello(
                run="run",
                attempt=attempt.number,
                rank=one.number,
                world_size=len(attempt.ranks),
                session=one.session if again else os.urandom(8).hex(),
            ),
            one.log,
        )

    # What the network does.

    @rule()
    def cut(self) -> None:
        self.proxy.cut()

    @rule(nbytes=st.integers(0, 6000))
    def cut_mid_message(self, nbytes: int) -> None:
        self.proxy.cut_after(nbytes)

    @rule()
    def vanish(self) -> None:
        """Half-open: the server goes on holding streams whose senders are gone."""
        self.proxy.vanish()

    @rule(steps=st.lists(STEPS, min_size=1, max_size=2), cut=st.booleans())
    def stall(self, steps: list[Any], cut: bool) -> None:
        """Nothing passes for a while; what was on the way arrives after all, or is lost."""
        self.proxy.stall()
        self.train(steps)
        if cut:
            self.proxy.cut()
        self.proxy.resume()

    @rule(steps=st.lists(STEPS, min_size=1, max_size=2))
    def refuse(self, steps: list[Any]) -> None:
        self.proxy.refuse()
        self.proxy.cut()
        self.train(steps)
        self.proxy.accept()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05]))
    def delay(self, seconds: float) -> None:
        self.proxy.delay(seconds)

    # What happens to the server.

    @rule(kill=st.booleans())
    def restart_server(self, kill: bool) -> None:
        if kill:
            self.server.kill()
        else:
            os.kill(self.server.pid, signal.SIGTERM)
            assert self.server.wait() == 0
        self.server.start()

    # The end.

    def teardown(self) -> None:
        if not hasattr(self, "proxy"):
            return
        try:
            self.finish()
        finally:
            for attempt in self.attempts:
                for rank in attempt.ranks:
                    rank.stream.close(0.5)
            self.proxy.__exit__(None, None, None)
            if self.server.exit_code is None:
                self.server.kill()
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        self.calm()
        self.train([A_STEP])
        for rank in self.attempts[-1].ranks:
            assert rank.stream.flush(TIMEOUT), rank.stream.stats
            assert rank.stream.stats.rejected == 0
        with Client(self.server.address, timeout=TIMEOUT) as client:
            assert client.finish_run("run").state == run_pb2.RUN_STATE_FINISHED
        self.server.kill()
        windows, given = stored(self.folder / "disturbed")
        wanted, judgements, _ = self.oracle().judged()
        assert windows == wanted
        if judgements and judgements[-1].verdicts:
            assert signal_said(given) == judgement_said(judgements[-1])
        undisturbed, wanted_signal = self.undisturbed()
        assert windows == undisturbed
        assert signal_said(given) == signal_said(wanted_signal)

    def oracle(self) -> Oracle:
        """Told of everything in order: step by step, rank by rank."""
        oracle = Oracle("run", with_defaults(self.config))
        topology = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())
        for attempt in self.attempts:
            for rank in attempt.ranks:
                oracle.hello(rank.number, len(attempt.ranks), attempt.number)
            for rank, sent in in_order(attempt):
                if isinstance(sent, int):
                    oracle.watermark(rank.number, sent)
                elif isinstance(sent, Checkpoint):
                    oracle.checkpoint(sent)
                elif isinstance(sent, routing_pb2.ExpertGeometry):
                    oracle.geometry(rank.number, decode_geometry(sent, topology), sent.SerializeToString())
                else:
                    oracle.observe(rank.number, sent)
        oracle.finish()
        return oracle

    def undisturbed(self) -> tuple[list[Any], signal_pb2.Signal]:
        """What a server says that gets everything in order, with nothing between."""
        data = self.folder / "undisturbed"
        with BackgroundServer(ServerConfig(data=data)) as server:
            for attempt in self.attempts:
                streams = [
                    RoutingStream(
                        server.grpc_address,
                        run="run",
                        attempt=attempt.number,
                        rank=rank.number,
                        world_size=len(attempt.ranks),
                        config=self.config,
                    )
                    for rank in attempt.ranks
                ]
                for _, together in itertools.groupby(in_order(attempt), key=lambda item: item[0].number):
                    for rank, sent in together:
                        deliver(streams[rank.number], sent)
                    assert streams[rank.number].flush(TIMEOUT)
                for stream in streams:
                    stream.close()
            with Client(server.grpc_address, timeout=TIMEOUT) as client:
                client.finish_run("run")
        return stored(data)

    # How it is done.

    def start_attempt(self, world_size: int, step: int) -> None:
        attempt = Attempt(len(self.attempts), step)
        for number in range(world_size):
            session = f"{attempt.number}.{number}"
            stream = RoutingStream(
                self.proxy.address,
                run="run",
                attempt=attempt.number,
                rank=number,
                world_size=world_size,
                config=self.config,
                session=session,
            )
            attempt.ranks.append(Rank(number, session, stream))
        self.attempts.append(attempt)

    def calm(self) -> None:
        """Nothing goes wrong from now on."""
        self.proxy.delay(0)
        self.proxy.cut_after(1 << 40)
        self.proxy.resume()
        self.proxy.accept()


def in_order(attempt: Attempt) -> Iterable[tuple[Rank, Sent]]:
    """Everything the ranks of an attempt have sent: by step, and within a step rank by rank."""

    def step_of(sent: Sent) -> int:
        if isinstance(sent, int):
            return sent
        return sent.step if isinstance(sent, routing_pb2.ExpertGeometry | Checkpoint) else sent[0].key[1]

    everything = [(rank, sent) for rank in attempt.ranks for sent in rank.log]
    return sorted(everything, key=lambda item: step_of(item[1]))


def deliver(stream: RoutingStream, sent: Sent) -> None:
    """Through the client, as a training job does."""
    if isinstance(sent, int):
        stream.watermark(sent)
    elif isinstance(sent, Checkpoint):
        stream.register_checkpoint(step=sent.step, tag=sent.tag)
    elif isinstance(sent, routing_pb2.ExpertGeometry):
        stream.geometry(
            step=sent.step, gram_self=from_tensor(sent.gram_self), gram_next=from_tensor(sent.gram_next)
        )
    else:
        one = sent[0]
        stream.observe(
            step=one.key[1],
            group=one.key[0],
            sample_ids=np.array([piece.key[2] for piece in sent]),
            weights=column(sent, "weights", np.float32),
            losses=column(sent, "loss", np.float32),
            token_counts=column(sent, "tokens", np.int32),
            target_token_counts=column(sent, "target_tokens", np.int32),
            target_weights=column(sent, "target_weights", np.float32),
            targets=column(sent, "target", np.int32),
            visits=column(sent, "visits", np.int32),
            layers=one.layers,
            token_part=one.token_part,
            token_parts=one.token_parts,
        )


def repeat_raw(address: str, hello: routing_pb2.StreamHello, log: Sequence[Sent]) -> None:
    """Messages of a log once more, by hand, until all are acknowledged."""
    deadline = time.monotonic() + TIMEOUT
    with grpc.insecure_channel(address) as channel:
        while not repeated(channel, hello, log):
            assert time.monotonic() < deadline


def repeated(channel: grpc.Channel, hello: routing_pb2.StreamHello, log: Sequence[Sent]) -> bool:
    """Whether all came through; not where the rank's own stream, ended for this one, is back before."""
    requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = queue.SimpleQueue()
    requests.put(routing_pb2.StreamRoutingRequest(hello=hello))
    sequence = 0
    for sent in log:
        if isinstance(sent, Checkpoint):
            continue  # a call of its own
        sequence += 1
        request = routing_pb2.StreamRoutingRequest(sequence=sequence)
        if isinstance(sent, int):
            request.watermark.step = sent
        elif isinstance(sent, routing_pb2.ExpertGeometry):
            request.geometry.CopyFrom(sent)
        else:
            request.batch.CopyFrom(message(sent))
        requests.put(request)
    call = routing_pb2_grpc.RoutingServiceStub(channel).StreamRouting(
        iter(requests.get, None), timeout=TIMEOUT
    )
    try:
        return any(response.acked_sequence >= sequence for response in call)
    except grpc.RpcError as error:
        if "took over" not in (error.details() or ""):
            raise
        return False
    finally:
        requests.put(None)
        call.cancel()


def stored(data: Path) -> tuple[list[Any], signal_pb2.Signal]:
    """Windows and the last signal of a server that has ended."""
    store = SqliteStore(data)
    try:
        last = store.last_signal("run")
        assert last is not None
        return said(store.windows("run")), signal_pb2.Signal.FromString(last.signal)
    finally:
        store.close()


class ShortDelivery(RealDelivery):
    pass


TestShortDelivery = pytest.mark.slow(ShortDelivery.TestCase)
TestShortDelivery.settings = drawn(2, rules=12)
TestDelivery = pytest.mark.robustness(pytest.mark.timeout(900)(RealDelivery.TestCase))
TestDelivery.settings = drawn(15, rules=12)
