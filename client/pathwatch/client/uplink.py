"""One connection's work: send what is buffered, take acknowledgements, rejections and advice."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import grpc

from pathwatch.client.connection import Connection
from pathwatch.client.errors import ended_by_age, explain, one_line, status_of
from pathwatch.client.logs import QuietLogger
from pathwatch.client.messages import NUDGE, Message
from pathwatch.client.retry_info import is_lasting
from pathwatch.client.session import Session
from pathwatch.client.watermarks import ToldDropped
from pathwatch.client.withholding import Withholding
from pathwatch.v1 import routing_pb2, run_pb2

if TYPE_CHECKING:
    from pathwatch.client.spooler import Spooler

_logger = QuietLogger("pathwatch.client")

_MOST_REPORTED = 100
"""Kinds of refusals that are said; a server could make up any number."""
_MOST_ADVISED = 1000
"""Groups that advice is kept for, likewise."""
_CALL_TIMEOUT = 10.0
_RETRIED = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
_REFUSALS = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT})
"""Of what an earlier life left: it would be refused for ever."""
_TOO_LARGE = re.compile(r"larger than max \(\d+ vs\. (\d+)\)")


class Uplink:
    """Drives one StreamRouting call at a time out of a buffer that outlives it."""

    def __init__(
        self,
        own: Session,
        config: run_pb2.RunConfig | None,
        withholding: Withholding,
        spooler: Spooler | None = None,
    ) -> None:
        """With a `config` the run is created, if it does not exist, before the first stream.

        What the spooler has of earlier lives goes before anything of `own`.
        """
        self._own = own
        self._config = config
        self._withholding = withholding
        self._spooler = spooler
        self._reported: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._call = 0
        self._greeted = -1
        self._failure: Exception | None = None
        self._told_dropped = ToldDropped()
        self.created = threading.Event()
        """The run has been created, where that is ours to do."""
        self.connections = 0
        """Streams opened so far."""
        self.rejected = 0
        """Messages refused, here or by the server."""
        self.advice: Mapping[str, int] = {}
        """Group → threshold: samples whose hash is at or above it need not be sent."""

    @property
    def connected(self) -> bool:
        """True while a stream is open on which the hello has left."""
        return self._greeted == self._call

    def abandon(self) -> None:
        """In a forked child: no thread serves the connection any more."""
        self._greeted = -1

    def attempt(self, connection: Connection, answered: Callable[[], None]) -> None:
        """Connect and work until the stream is over; raises what ended it."""
        self._create_run(connection)
        self.created.set()
        if self._spooler is not None:
            for session in self._spooler.leftovers():
                self._deliver_leftover(connection, answered, session)
        try:
            self._converse(connection, answered, self._own)
        except Exception as error:
            if not (isinstance(error, grpc.RpcError) and ended_by_age(error)):
                self._withholding.stop()  # nobody is there to ask for what is held back
            raise

    def _deliver_leftover(
        self, connection: Connection, answered: Callable[[], None], session: Session
    ) -> None:
        try:
            self._converse(connection, answered, session)
        except grpc.RpcError as error:
            if status_of(error)[0] not in _REFUSALS or self._spooler is None:
                raise
            self._spooler.refused(session, str(explain(error, "the sidecar")))

    def _converse(self, connection: Connection, answered: Callable[[], None], session: Session) -> None:
        """One call: deliver what is in a session's buffer; what earlier lives left ends it by itself."""
        hello = self._hello(session)
        if session is self._own:
            self._told_dropped.reconnect()
        self._call += 1
        self._failure = None
        requests = self._requests(connection, hello, session, self._call, session.buffer.rewind())
        call = connection.routing.StreamRouting(requests)
        try:
            first = True
            for response in call:
                answered()
                self._take_in(session, response)
                if session is self._own:
                    self._withholding.heed(response, first=first)
                first = False
        except grpc.RpcError as error:
            if isinstance(self._failure, grpc.RpcError):  # for which we closed the connection ourselves
                raise self._failure from None
            self._notice_limit(session, error)
            raise
        finally:
            self._greeted = -1
            self._call += 1
            session.buffer.rewind()
            call.cancel()  # type: ignore[no-untyped-call]

    def reject(self, kind: str, field: str, why: str) -> None:
        """Count a message that will not be stored; say so once per field and kind of message."""
        self._count_rejected(1)
        self._say_rejected(kind, field, why)

    def _count_rejected(self, count: int) -> None:
        with self._lock:
            self.rejected += count

    def _say_rejected(self, kind: str, field: str, why: str) -> None:
        with self._lock:
            if (kind, field) in self._reported or len(self._reported) >= _MOST_REPORTED:
                return
            self._reported.add((kind, field))
        _logger.warning("pathwatch: %s refused: %s (more of this kind are only counted)", kind, one_line(why))

    def _create_run(self, connection: Connection) -> None:
        if self._config is None:
            return
        request = run_pb2.CreateRunRequest(
            name=self._own.identity.run, config=self._config, attempt=self._own.identity.attempt
        )
        connection.runs.CreateRun(request, timeout=_CALL_TIMEOUT)

    def _requests(
        self,
        connection: Connection,
        hello: routing_pb2.StreamHello,
        session: Session,
        number: int,
        generation: int,
    ) -> Iterator[routing_pb2.StreamRoutingRequest]:
        """What gRPC sends; it asks for the next message when the last has left. Runs in gRPC's thread."""
        yield routing_pb2.StreamRoutingRequest(hello=hello)
        self._greeted = number
        self.connections += session is self._own
        while (message := session.buffer.take(generation)) is not None:
            if message is NUDGE:
                if (told := self._withholding.next_message()) is not None:
                    yield told
                continue
            if message.checkpoint is not None:
                failure = self._register(connection, session, message)
                if failure is not None:
                    if self._call == number:
                        self._failure = failure
                    connection.close()
                    return
                continue
            request = self._encoded(session, message)
            if request is not None:
                yield request

    def _encoded(self, session: Session, message: Message) -> routing_pb2.StreamRoutingRequest | None:
        encode = message.encode
        if encode is None:  # dropped since it was taken
            return None
        try:
            request = encode()
        except Exception as error:  # one bad message must not hold up the others
            self.reject(message.kind, "", f"cannot be encoded: {error}")
            session.buffer.discard(message)
            return None
        request.sequence = message.sequence
        if message.kind == "watermark" and session is self._own:
            self._told_dropped.sent(request)
        return request

    def _hello(self, session: Session) -> routing_pb2.StreamHello:
        from importlib.metadata import version  # slow to import, and needed here only

        who = session.identity
        return routing_pb2.StreamHello(
            run=who.run,
            attempt=who.attempt,
            rank=who.rank,
            world_size=who.world_size,
            session=who.session,
            client_version=version("pathwatch"),
            told_dropped_observations=self._told_dropped.count if session is self._own else 0,
        )

    def _register(self, connection: Connection, session: Session, message: Message) -> Exception | None:
        """Register a checkpoint in its place among the messages; what keeps it from being tried now."""
        request = run_pb2.RegisterCheckpointRequest(run=session.identity.run, checkpoint=message.checkpoint)
        try:
            connection.runs.RegisterCheckpoint(request, timeout=_CALL_TIMEOUT)
        except grpc.RpcError as error:
            # A full register of checkpoints must not hold up the observations behind it.
            if status_of(error)[0] in _RETRIED and not is_lasting(error):
                return error
            self.reject(message.kind, "", str(explain(error, "the sidecar")))
        except ValueError as error:  # the channel was closed meanwhile
            return error
        session.buffer.discard(message)
        return None

    def _take_in(self, session: Session, response: routing_pb2.StreamRoutingResponse) -> None:
        self._count_rejected(len(response.rejections))  # before `flush` can return
        kinds = {m.sequence: m.kind for m in session.buffer.acknowledge(response.acked_sequence)}
        if session is self._own:
            self._told_dropped.acknowledge(response.acked_sequence)
        for rejection in response.rejections:
            kind = kinds.get(rejection.sequence, "message")
            where = f"{rejection.field}: " if rejection.field else ""
            sample = f" (sample {rejection.sample_id})" if rejection.HasField("sample_id") else ""
            self._say_rejected(kind, rejection.field, f"{where}{rejection.message}{sample}")
        if response.advice:
            advice = {**self.advice, **{a.group: a.hash_threshold for a in response.advice}}
            self.advice = dict(list(advice.items())[-_MOST_ADVISED:])

    def _notice_limit(self, session: Session, error: grpc.RpcError) -> None:
        """A message over the server's limit ends the stream, and would again and again: let it go."""
        code, details = status_of(error)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (found := _TOO_LARGE.search(details)):
            for message in session.buffer.limit(int(found[1])):
                self.reject(
                    message.kind, "", f"{message.nbytes} bytes, the server takes {found[1]} in one message"
                )
                session.buffer.discard(message)
