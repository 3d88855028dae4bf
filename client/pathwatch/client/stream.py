"""The stream of a training job: hands everything to a background thread at once and never raises."""

from __future__ import annotations

import atexit
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathwatch.client.buffer import Counts, SendBuffer
from pathwatch.client.channel import Credentials
from pathwatch.client.connection import Connection
from pathwatch.client.logs import QuietLogger
from pathwatch.client.messages import Message
from pathwatch.client.observations import Observations, RawScores, checked, checked_geometry
from pathwatch.client.reconnect import Reconnecting
from pathwatch.client.route import Route
from pathwatch.client.session import Identity, Session
from pathwatch.client.spool import Spool
from pathwatch.client.uplink import Uplink
from pathwatch.client.watermarks import WatermarkRequest
from pathwatch.client.withholding import Withholding
from pathwatch.v1 import run_pb2, signal_pb2

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from pathwatch.client.spooler import Spooler

_logger = QuietLogger("pathwatch.client")

_CREATED_POLL = 0.1
_MESSAGE_BYTES = 256 << 10
"""Larger observations are sent in pieces: encoding a piece holds the interpreter for well under 1 ms."""
_EXIT_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """What became of the messages of a stream so far."""

    sent: int
    """Messages handed to the transport, those sent again included."""
    acked: int
    """Messages the server has stored or refused."""
    buffered_bytes: int
    """Bytes held: not sent or not acknowledged."""
    spooled_bytes: int
    """Bytes held in files, those that earlier lives left included; always 0 without a spool."""
    spool_damages: int
    """Damaged places found in spool files; each cost one message or more."""
    spool_error: str | None
    """Newest failure of the spool's file system, kept after recovery; None = there was none."""
    dropped_steps: int
    """Steps dropped because the buffer, and the spool if there is one, was full or failed."""
    dropped_observations: int
    """Observations dropped with them."""
    rejected: int
    """Messages refused: by the server, or as malformed before they were sent."""
    reconnects: int
    """Streams opened after the first."""
    connected: bool
    """True while a stream to the server is open."""
    holds_back: bool
    """True while only those observations are sent that the server asks for (docs/sampling.md)."""
    last_error: str | None
    """Newest connection failure, kept after recovery; None = there was none."""


class RoutingStream:
    """Sends what a rank observes to the sidecar, from a background thread.

    No method blocks (but `flush` and `close`, for as long as they are told), none raises: what goes wrong is
    logged, counted in `stats`, and training goes on. While the sidecar is away everything is kept, up to
    `buffer_bytes`, and on disk where there is a spool; beyond, whole oldest steps are dropped and counted.
    Every message is delivered at least once; the server recognises the second time. In a forked child (a
    DataLoader worker) it is inert.
    """

    def __init__(
        self,
        address: str,
        *,
        run: str,
        attempt: int = 0,
        rank: int = 0,
        world_size: int = 1,
        config: run_pb2.RunConfig | None = None,
        credentials: Credentials | None = None,
        buffer_bytes: int = 64 << 20,
        watch: bool = False,
        session: str | None = None,
        spool: Spool | None = None,
    ) -> None:
        """Returns at once, whether or not there is a server.

        `address` is HOST:PORT, or where the servers are of which one has the run (docs/scale.md).
        With a `config` the run is created on connecting unless it exists. With `watch` signals are
        followed too (one rank is enough). `session` names this life of this process, never to be
        used again by another; None = a random name. With a `spool` what memory cannot hold, and whatever
        waits for long, is kept in files, from which a later life can deliver it (docs/spool.md).
        """
        import numpy  # noqa: F401 # where the job did not: now, and not within its first step

        identity = Identity(
            run=run,
            attempt=attempt,
            rank=rank,
            world_size=world_size,
            session=session or os.urandom(16).hex(),
        )
        self._attempt = attempt
        self._run = run
        self._signal: signal_pb2.Signal | None = None
        self._closed = False
        self._inert = False
        self._warned_full = False
        self._buffer = SendBuffer(buffer_bytes)
        self._spooler = None if spool is None else _spooler(spool, identity, self._buffer, buffer_bytes // 2)
        self._withholding = Withholding(
            run,
            rank,
            self._buffer,
            attempt=attempt,
            send=self._send_observations,
            mark=self._send_watermark,
            most_bytes=buffer_bytes // 4,
        )
        self._uplink = Uplink(Session(identity, self._buffer), config, self._withholding, self._spooler)
        self._sender = Reconnecting(
            "pathwatch-stream",
            Route(address, run),
            credentials,
            self._uplink.attempt,
            on_end=self._buffer.close,
        )
        self._follower = (
            Reconnecting(
                "pathwatch-signals", Route(address, run), credentials, self._follow, tells_absence=False
            )
            if watch
            else None
        )
        _open_streams.add(self)

    def observe(
        self,
        *,
        step: int,
        group: str,
        sample_ids: ArrayLike,
        weights: ArrayLike | None = None,
        raw: RawScores | None = None,
        losses: ArrayLike | None = None,
        token_counts: ArrayLike | None = None,
        target_token_counts: ArrayLike | None = None,
        target_weights: ArrayLike | None = None,
        targets: ArrayLike | None = None,
        visits: ArrayLike | None = None,
        layers: Sequence[int] | None = None,
        token_part: int = 0,
        token_parts: int = 1,
    ) -> None:
        """Send n samples of a group at a step; all arrays are copied, in host memory.

        Args:
            step: optimizer step, above the last watermark.
            group: name of the samples' data group.
            sample_ids: [n] integers, stable within the group.
            weights: [n, L, K] mean routing weights over each sample's real tokens, rows summing to one;
                float32, float16, or bfloat16 as uint16 bits. This or `raw`.
            raw: per-token router scores, for the server to reduce.
            losses: [n] mean loss over each sample's target tokens, nats.
            token_counts: [n] real tokens held; None = 1 each.
            target_token_counts: [n] target tokens held; None = `token_counts`.
            target_weights: [n, L, K] mean over the target tokens, where it differs from `weights`.
            targets: [n] class or token id a sample's target tokens share, -1 = none.
            visits: [n] how often a sample was trained on before this step, -1 = not known.
            layers: layers held, ascending, when not all are (pipeline parallel).
            token_part, token_parts: which part of the samples' tokens is held (sequence parallel).
        """
        if self._closed:
            return
        try:
            self._withholding.observe(
                checked(
                    step=operator.index(step),
                    group=group,
                    sample_ids=sample_ids,
                    weights=weights,
                    raw=raw,
                    losses=losses,
                    token_counts=token_counts,
                    target_token_counts=target_token_counts,
                    target_weights=target_weights,
                    targets=targets,
                    visits=visits,
                    layers=layers,
                    token_part=token_part,
                    token_parts=token_parts,
                )
            )
        except Exception as error:  # nothing of ours may reach training
            self._uplink.reject("batch", type(error).__name__, str(error))

    def geometry(self, *, step: int, gram_self: ArrayLike, gram_next: ArrayLike) -> None:
        """Send inner products of router rows, W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L - 1, K, K], float32."""
        self._guarded("geometry", lambda: self._add_geometry(operator.index(step), gram_self, gram_next))

    def watermark(self, step: int) -> None:
        """Promise that nothing more comes from this rank for steps up to and including `step`."""
        self._guarded("watermark", lambda: self._withholding.watermark(_checked_step(operator.index(step))))

    def register_checkpoint(self, *, step: int, tag: str) -> None:
        """Make a saved checkpoint known, under the path or tag by which the job finds it again.

        It arrives after what was sent before (what is held back comes later, docs/sampling.md) and before any
        later watermark.
        """
        self._guarded("checkpoint", lambda: self._add_checkpoint(operator.index(step), tag))

    @property
    def signal(self) -> signal_pb2.Signal | None:
        """Newest signal; None before the first, or without `watch`."""
        return self._signal

    @property
    def advice(self) -> Mapping[str, int]:
        """Group → newest sampling threshold: samples whose hash is at or above it need not be sent."""
        return self._uplink.advice

    @property
    def stats(self) -> StreamStats:
        """What became of the messages so far."""
        counts, spooler = self._counts, self._spooler
        return StreamStats(
            sent=counts.sent,
            acked=counts.acked,
            buffered_bytes=self._buffer.nbytes,
            spooled_bytes=0 if spooler is None else spooler.nbytes,
            spool_damages=0 if spooler is None else spooler.damaged,
            spool_error=None if spooler is None else spooler.last_error,
            dropped_steps=counts.dropped_steps,
            dropped_observations=counts.dropped_observations,
            rejected=self._uplink.rejected,
            reconnects=max(0, self._uplink.connections - 1),
            connected=self._uplink.connected,
            holds_back=self._withholding.active,
            last_error=self._sender.last_error,
        )

    @property
    def _counts(self) -> Counts:
        """What happened to messages, those that earlier lives left included."""
        counts = self._buffer.counts
        return counts if self._spooler is None else counts + self._spooler.counts

    def flush(self, timeout: float) -> bool:
        """Wait until all is acknowledged and all checkpoints registered; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self._inert:
            self._withholding.release()
        if self._spooler is not None and not self._spooler.wait_delivered(timeout):
            return False
        return self._buffer.wait_empty(max(0.0, deadline - time.monotonic()))

    def close(self, timeout: float = 4.0) -> None:
        """Deliver what is buffered and end the thread, within `timeout` seconds.

        A server that is away gets one last attempt, at once; what is left then is lost and said so. With a
        spool it stays on disk for the next stream of this run, attempt and rank.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout
        self._withholding.stop()
        self._sender.hurry()
        # Part of the time is kept for taking the connection down.
        delivered = self._deliver_last(timeout * 0.8)
        self._sender.finish()  # before the buffer ends the call well, which else is taken up again
        self._buffer.close()
        if self._spooler is not None:
            self._spooler.close(max(0.0, deadline - time.monotonic()) / 2)
        if not delivered:
            kept = 0 if self._spooler is None else self._spooler.nbytes
            _logger.warning(
                "pathwatch: closed with %d bytes not delivered (%s)%s",
                self._buffer.nbytes,
                self._sender.last_error or "the server has not acknowledged them",
                f", and {kept} in the spool for the next life" if kept else "",
            )
        self._end_threads(deadline)

    def _deliver_last(self, timeout: float) -> bool:
        if self._spooler is None:
            return self._buffer.wait_empty(timeout)
        # What a connection takes need not be written; what it does not must be before the process ends.
        if self._uplink.connected and self.flush(timeout / 2):
            return True
        self._spooler.keep_all()
        return self._buffer.wait_empty(timeout / 2)

    def _end_threads(self, deadline: float) -> None:
        if self._inert:
            return
        follower_ended = self._follower is None or self._follower.stop(max(0.0, deadline - time.monotonic()))
        left = max(0.0, deadline - time.monotonic())
        if self._sender.stop(left, grace=left / 2) and follower_ended:
            _open_streams.discard(self)

    def _keep_all(self) -> None:
        if self._spooler is not None:
            self._spooler.keep_all()

    def _guarded(self, kind: str, add: Callable[[], None]) -> None:
        if self._closed:
            return
        try:
            add()
        except Exception as error:  # nothing of ours may reach training
            self._uplink.reject(kind, type(error).__name__, str(error))

    def _send_observations(self, observations: Observations) -> None:
        try:
            self._add_observations(observations)
        except Exception as error:  # also in threads of ours, which are to go on
            self._uplink.reject("batch", type(error).__name__, str(error))

    def _send_watermark(self, step: int) -> None:
        request = WatermarkRequest(step, lambda: self._counts.dropped_observations)
        self._add(Message(kind="watermark", step=step, encode=request))

    def _add_observations(self, observations: Observations) -> None:
        if observations.samples == 0:
            return
        overhead = observations.array_overhead  # pieces share the arrays
        for piece in observations.split(_MESSAGE_BYTES):
            self._add(
                Message(
                    kind="batch",
                    step=observations.step,
                    encode=piece.request,
                    nbytes=piece.nbytes + overhead,
                    samples=piece.samples,
                )
            )
            overhead = 0

    def _add_geometry(self, step: int, gram_self: ArrayLike, gram_next: ArrayLike) -> None:
        geometry = checked_geometry(step=step, gram_self=gram_self, gram_next=gram_next)
        self._add(Message(kind="geometry", step=step, encode=geometry.request, nbytes=geometry.nbytes))

    def _add_checkpoint(self, step: int, tag: str) -> None:
        checkpoint = run_pb2.Checkpoint(step=step, tag=tag, attempt=self._attempt)
        self._add(Message(kind="checkpoint", step=step, checkpoint=checkpoint, nbytes=len(tag)))

    def _add(self, message: Message) -> None:
        if self._buffer.add(message) or self._warned_full:
            return
        self._warned_full = True
        _logger.warning("pathwatch: the buffer is full, dropping the oldest steps (counted in stats)")

    def _follow(self, connection: Connection, answered: Callable[[], None]) -> None:
        # The run may be ours to create: asked for its signals earlier, the server knows none.
        while not self._uplink.created.wait(_CREATED_POLL):
            if self._closed:
                return
        request = signal_pb2.WatchSignalsRequest(run=self._run)
        for response in connection.signals.WatchSignals(request):
            answered()
            self._signal = response.signal

    def _become_inert(self) -> None:
        """In a forked child: there is no thread, and a lock may be held for ever; touch neither again."""
        self._closed = self._inert = True
        self._uplink.abandon()
        self._spooler = None
        self._buffer = SendBuffer(0)


def _spooler(spool: Spool, identity: Identity, buffer: SendBuffer, spool_from: int) -> Spooler:
    from pathwatch.client.spooler import Spooler  # only here: most jobs have no spool

    return Spooler(spool, identity, buffer, spool_from=spool_from)


def _checked_step(step: int) -> int:
    if step < 0:
        raise ValueError(f"step is {step}, must not be negative")
    return step


# Held until closed, so that what a forgotten stream has buffered is still delivered at exit, and until its
# threads have ended: one that is inside gRPC while the interpreter goes away can take the process with it.
_open_streams: set[RoutingStream] = set()


def _close_all() -> None:
    deadline = time.monotonic() + _EXIT_TIMEOUT
    streams = list(_open_streams)
    if len(streams) > 1:  # the first may take nearly all the time there is
        for stream in streams:
            stream._keep_all()
    for stream in streams:
        stream.close(max(0.0, deadline - time.monotonic()))
        stream._end_threads(deadline)


def _disarm_all() -> None:
    for stream in list(_open_streams):
        stream._become_inert()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_disarm_all)
