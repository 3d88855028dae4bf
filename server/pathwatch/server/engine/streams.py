"""What passes between a rank's open stream and the writer thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.metrics.window import Geometry
from pathwatch.server.sketch.admission import Admit
from pathwatch.server.sketch.observations import ObservationBlock

ADVICE_STEP = 0.9
"""Advice is repeated once its threshold has fallen by this factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Decoded observations and the bytes they are stored as."""

    block: ObservationBlock
    serialized: bytes
    """What is stored of it (stored_batch.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterGeometry:
    """Decoded inner products and the bytes they came as."""

    geometry: Geometry
    serialized: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """A rank's promise to send nothing more up to `step`."""

    step: int
    dropped: int = 0
    """Observations that the sender's session has had to drop so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """What a rank holds back of its observations, as far as it says; not numbered, the newest counts."""

    step: int
    """Last step it has completed."""
    until_step: int | None = None
    """End of the oldest window it has passed and holds something of; None = there is none."""
    round: int = 0
    """Newest round of requests for that window that it has heeded."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Samples held of each group of which nothing has been asked."""
    holds_misnamed: bool = False
    """Whether it also holds some of groups whose names are not to be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rank must know of a run to hold observations back."""

    window_steps: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """Samples of a group with a hash up to `through` are to be sent."""

    group: str
    """Empty = of all groups."""
    until_step: int | None = None
    """End of the window; None = what is expected of all of which nothing else is said."""
    round: int = 0
    through: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One message that was not taken."""

    sequence: int
    refusal: RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Samples of `group` with a hash from `threshold` up need not be sent for steps up to `until_step`."""

    group: str
    until_step: int
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Everything up to `sequence` is durable or refused."""

    sequence: int
    rejected: tuple[Rejected, ...]
    advice: tuple[Advice, ...]
    accepted: int
    """Observations accepted since the stream began."""
    late: int
    """Observations too late since the stream began."""
    size: int
    """Bytes of the messages this answers; they no longer count as unacknowledged."""
    requests: tuple[SampleRequest, ...] = ()
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The stream is to be ended by the server."""

    refusal: RefusedError


@dataclass(slots=True, kw_only=True)
class RankStream:
    """One open stream. After its hello, only the writer thread touches it."""

    run: str
    attempt: int
    rank: int
    world_size: int
    session: str
    deliver: Callable[[Ack | End], None]
    """Hands an event to the stream's servicer; called from the writer thread."""
    admit: Admit | None = None
    """Which observations the run's windows still want, as of now; set by the writer before the hello is
    answered, asked by whoever decodes."""
    told_dropped: int = 0
    """Dropped observations that acknowledged watermarks of the session have told."""
    ended: bool = False
    acked: int = 0
    accepted: int = 0
    late: int = 0
    size: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    requests: list[SampleRequest] = field(default_factory=list)
    plan: Plan | None = None
    expectations: int = 0
    """Version of what is expected of windows to come that the rank was told."""
    _advised: dict[str, Advice] = field(default_factory=dict)

    def take_ack(self) -> Ack:
        """What is to be answered since the last time."""
        ack = Ack(
            sequence=self.acked,
            rejected=tuple(self.rejected),
            advice=tuple(self.advice),
            accepted=self.accepted,
            late=self.late,
            size=self.size,
            requests=tuple(self.requests),
            plan=self.plan,
        )
        self.rejected.clear()
        self.advice.clear()
        self.requests.clear()
        self.plan = None
        self.size = 0
        return ack

    def advise(self, advice: Advice) -> None:
        """Pass advice on where it spares much: for a new window, or once the threshold fell by a tenth."""
        known = self._advised.get(advice.group)
        if (
            known is None
            or known.until_step != advice.until_step
            or advice.threshold <= known.threshold * ADVICE_STEP
        ):
            self._advised[advice.group] = advice
            self.advice.append(advice)

    def end(self, refusal: RefusedError) -> None:
        """End the stream; further messages of it are ignored."""
        if not self.ended:
            self.ended = True
            self.deliver(End(refusal=refusal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a stream, decoded; a RefusedError where that failed."""

    stream: RankStream
    sequence: int
    payload: Batch | RouterGeometry | Watermark | Withheld | RefusedError
    size: int
    """Bytes on the wire."""
    observations: int
    """Observations it holds, as far as that can be told."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that the writer has to store for it, at most: what costs it time."""
        match self.payload:
            case Batch(serialized=serialized) | RouterGeometry(serialized=serialized):
                return len(serialized)
        return 0
