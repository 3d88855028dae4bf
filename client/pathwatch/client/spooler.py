"""The thread that moves messages between memory and the spool folder; all access to files is here."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from pathwatch.client.backlog import Segment
from pathwatch.client.buffer import Counts, SendBuffer
from pathwatch.client.errors import PathwatchError
from pathwatch.client.leftovers import sort_leftovers
from pathwatch.client.logs import QuietLogger
from pathwatch.client.messages import Message
from pathwatch.client.session import Identity, Session
from pathwatch.client.spool import Spool
from pathwatch.client.spool_folder import (
    SpoolFolder,
    checkpoint_frames,
    make_durable,
    read_segment,
    write_at_end,
)
from pathwatch.client.spool_frames import Damage, Frame, frame_bytes
from pathwatch.client.spool_life import Life
from pathwatch.v1 import routing_pb2, run_pb2

_logger = QuietLogger("pathwatch.client")

_CHUNK = 1 << 20
"""Bytes written at a time."""
_SEGMENT = 8 << 20
_FRAMING = 1024
"""At least what a frame takes beside its payload, and a file beside its frames."""
_TICK = 1.0
_BEAT = 5.0
"""Seconds between two signs of life, which keep processes on other machines from adopting these files."""
_RETRY = 5.0
"""Seconds after a failure before the next file is written."""
_SEARCH_TIMEOUT = 120.0
"""Seconds after which what earlier lives left is given up, so that this one can send."""

_POLL = 0.1

_open_sessions: set[str] = set()


class _ClosingError(Exception):
    """The stream closes before it is known what may be sent first."""

    def __str__(self) -> str:
        return "closing while the spool folder is still searched for what earlier lives left"


class Spooler:
    """Writes what memory should not hold, reads it back, deletes what was delivered; never raises."""

    def __init__(self, spool: Spool, identity: Identity, buffer: SendBuffer, spool_from: int) -> None:
        """Starts at once. What the buffer holds above `spool_from` bytes is spooled."""
        self._identity = identity
        self._buffer = buffer
        self._max_bytes = spool.max_bytes
        self._segment_bytes = min(_SEGMENT, spool.max_bytes // 8)
        self._folder = SpoolFolder(Path(spool.folder), identity, Life.current(), time.time_ns())
        self._leftovers: Sequence[Session] = ()
        self._outdated = Counts()
        self._current: Segment | None = None
        self._said: set[str] = set()
        self._next_write = 0.0
        self._next_beat = 0.0
        self._wake = threading.Event()
        self._searched = threading.Event()
        self._given_up = False
        self._closing_undecided = False
        self._hurry = threading.Event()
        self._stop = False
        self.damaged = 0
        """Damaged places found in files; each cost a message or more."""
        self.last_error: str | None = None
        """Newest failure of the file system, kept after recovery."""
        _open_sessions.add(identity.session)
        buffer.spool_from(spool_from, self._wake.set)
        self._thread = threading.Thread(target=self._run, name="pathwatch-spool", daemon=True)
        self._thread.start()

    @property
    def nbytes(self) -> int:
        """Bytes on disk, of earlier lives included."""
        return sum(buffer.spooled_bytes for buffer in self._buffers())

    @property
    def counts(self) -> Counts:
        """What happened to messages of earlier lives."""
        return sum((leftover.buffer.counts for leftover in self._leftovers), self._outdated)

    def leftovers(self) -> Sequence[Session]:
        """What earlier lives left and must be delivered before anything of this one, the oldest first.

        Waits while they are looked for. Raises PathwatchError if the stream closes meanwhile.
        """
        deadline = time.monotonic() + _SEARCH_TIMEOUT
        while not (self._searched.wait(_POLL) or self._stop or self._given_up):
            if time.monotonic() > deadline:
                self._given_up = True
                self._fail("search", "the folder was not searched in time; what earlier lives left stays")
        if self._closing_undecided or not (self._searched.is_set() or self._given_up):
            raise PathwatchError(grpc.StatusCode.UNAVAILABLE, str(_ClosingError()))
        return [leftover for leftover in self._leftovers if not leftover.buffer.wait_empty(0)]

    def refused(self, leftover: Session, why: str) -> None:
        """The server will not take what an earlier life left: drop and count it."""
        _logger.warning("pathwatch: the sidecar refuses what an earlier life spooled: %s", why)
        for segment in leftover.buffer.segments:
            leftover.buffer.drop_segment(segment)

    def wait_delivered(self, timeout: float) -> bool:
        """True once nothing of earlier lives is left; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self._searched.wait(timeout):
            return False
        return all(
            leftover.buffer.wait_empty(max(0.0, deadline - time.monotonic())) for leftover in self._leftovers
        )

    def keep_all(self) -> None:
        """The stream is closing: spool everything that waits."""
        self._buffer.spool_from(-1, self._wake.set)
        self._hurry.set()
        self._wake.set()

    def close(self, timeout: float) -> bool:
        """Spool what is left and end, within `timeout` seconds; False if the thread has not ended."""
        self._stop = True
        self.keep_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._search()
        except _ClosingError:
            self._closing_undecided = True
        except Exception as error:  # a fault of ours, or a strange file, must not reach training
            self._fail("search", f"cannot search the folder: {_words(error)}")
        self._searched.set()
        while True:
            self._wake.wait(_TICK)
            self._wake.clear()
            stopping = self._stop
            try:
                self._serve()
            except Exception as error:
                self._fail("serve", _words(error))
            if stopping:
                break
        _open_sessions.discard(self._identity.session)

    def _search(self) -> None:
        found = sort_leftovers(self._folder, self._identity, _open_sessions.__contains__, self._watch)
        for segment in found.outdated:
            self._outdated.dropped_steps += segment.steps
            self._outdated.dropped_observations += segment.samples
            self._delete(segment)
        if found.outdated:
            _logger.warning(
                "pathwatch: removed %d spool files of attempts that are over, %d observations",
                len(found.outdated),
                self._outdated.dropped_observations,
            )
        if found.unreadable:
            self.damaged += len(found.unreadable)
            names = ", ".join(path.name for path in found.unreadable[:3])
            more = len(found.unreadable) - 3
            self._fail(
                "header",
                f"cannot tell whose {names}{f' and {more} more' if more > 0 else ''} is: left alone, "
                f"and what it holds is not delivered; remove it from {found.unreadable[0].parent}",
            )
        if not self._given_up:
            self._leftovers = found.adopted

    def _watch(self, seconds: float) -> None:
        if self._hurry.wait(seconds):
            raise _ClosingError

    def _buffers(self) -> list[SendBuffer]:
        return [*(leftover.buffer for leftover in self._leftovers), self._buffer]

    def _serve(self) -> None:
        for buffer in self._buffers():
            while self._read(buffer):
                pass
            self._delete_ended(buffer)
        if time.monotonic() >= self._next_write or self._stop:
            while chunk := self._buffer.to_spool(_CHUNK):
                if not self._write(chunk):
                    self._next_write = time.monotonic() + _RETRY
                    break
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + _BEAT
            if segments := self._buffer.segments:
                os.utime(segments[-1].path)

    def _write(self, messages: Sequence[Message]) -> bool:
        """Move messages to disk; False if that failed, they stay in memory then."""
        frames = [(message, frame) for message in messages if (frame := self._frame(message)) is not None]
        segment = None
        try:
            self._make_room(sum(len(frame.payload) + _FRAMING for _, frame in frames))
            if self._current is not None and self._current.nbytes >= self._segment_bytes:
                make_durable(self._current)
                self._current = None
            segment = self._current = self._current or self._folder.create()
            data = [frame_bytes(frame, segment.seed) for _, frame in frames]
            write_at_end(segment.path, b"".join(data))
        except OSError as error:
            # What a failed write left behind must stay at the end of its file.
            self._current = None
            if segment is not None and segment not in self._buffer.segments:  # nobody will ever look at it
                self._delete(segment)
            self._fail("write", f"cannot write: {_words(error)}; memory drops its oldest steps")
            return False
        ends = itertools.accumulate(map(len, data), initial=segment.nbytes)
        self._buffer.spooled(
            segment, [(message, end) for (message, _), end in zip(frames, list(ends)[1:], strict=True)]
        )
        self._said.discard("write")
        return True

    def _frame(self, message: Message) -> Frame | None:
        """None for a message that is no longer wanted, or cannot be encoded; that one is let go."""
        try:
            if message.checkpoint is not None:
                payload = message.checkpoint.SerializeToString()
            elif (encode := message.encode) is not None:
                payload = encode().SerializeToString()
            else:
                return None
        except Exception as error:  # one bad message must not hold up the others
            self._fail("encode", f"{message.kind} of step {message.step} cannot be encoded: {error}")
            self._buffer.count_lost(message.samples)
            self._buffer.discard(message)
            return None
        return Frame(
            kind=message.kind,
            step=message.step,
            sequence=message.sequence,
            samples=message.samples,
            payload=payload,
        )

    def _make_room(self, nbytes: int) -> None:
        while self.nbytes + nbytes > self._max_bytes:
            oldest = ((buffer, segment) for buffer in self._buffers() for segment in buffer.segments[:1])
            buffer, segment = next(oldest, (None, None))
            if buffer is None or segment is None:
                raise OSError(errno.EFBIG, f"{nbytes} bytes are over max_bytes, {self._max_bytes}")
            buffer.drop_segment(segment, self._checkpoints(segment))
            self._delete_ended(buffer)

    def _checkpoints(self, segment: Segment) -> list[Message]:
        if segment.checkpoints == 0:
            return []
        try:
            frames = checkpoint_frames(segment)
        except OSError as error:
            self._fail("read", f"cannot read {segment.path.name}: {_words(error)}; its checkpoints are lost")
            return []
        return [message for frame in frames if (message := _message(frame)) is not None]

    def _read(self, buffer: SendBuffer) -> bool:
        reading = buffer.reading()
        if reading is None:
            return False
        segment = reading.segment
        if segment is self._current:  # from now on it is read; what comes goes to another
            self._current = None
        messages = []
        try:
            read = read_segment(segment, reading.offset, reading.nbytes)
        except OSError as error:
            lost = f"its {segment.samples} observations are lost"
            self._fail("read", f"cannot read {segment.path.name}: {_words(error)}; {lost}")
            buffer.drop_segment(segment)
            return True
        for frame in read.frames:
            message = _message(frame)
            if message is None:
                read.damages.append((Damage(frame.samples), read.offset))
            else:
                messages.append(message)
        new = [damage for damage, end in read.damages if end > segment.checked]
        if new:
            self.damaged += len(new)
            buffer.count_lost(sum(damage.samples for damage in new), segment)
            where = f"{segment.path.name} is damaged before byte {read.offset}"
            self._fail("damage", f"{where}; what is whole in it is delivered")
        segment.checked = max(segment.checked, read.offset)
        if buffer.loaded(reading, messages, read.offset):
            self._say(
                "large", f"{segment.path.name} holds messages larger than the server takes: dropped, counted"
            )
        return True

    def _delete_ended(self, buffer: SendBuffer) -> None:
        for segment in buffer.take_ended_segments():
            if segment is self._current:
                self._current = None
            self._delete(segment)

    def _delete(self, segment: Segment) -> None:
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._fail("delete", f"cannot delete {segment.path.name}: {_words(error)}")

    def _fail(self, kind: str, text: str) -> None:
        """Say it, once until the next success."""
        self.last_error = text
        self._say(kind, text)

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            _logger.warning("pathwatch: spool: %s", text)


def _message(frame: Frame) -> Message | None:
    """The message that was spooled; None if it cannot be decoded."""
    checkpoint = request = None
    try:
        if frame.kind == "checkpoint":
            checkpoint = run_pb2.Checkpoint.FromString(frame.payload)
        else:
            request = routing_pb2.StreamRoutingRequest.FromString(frame.payload)
    except DecodeError:
        return None
    return Message(
        kind=frame.kind,
        step=frame.step,
        encode=None if request is None else (lambda: request),
        checkpoint=checkpoint,
        nbytes=len(frame.payload),
        samples=frame.samples,
        sequence=frame.sequence,
        done=True,
    )


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({os.fspath(error.filename)})" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
