"""What a rank is told was acknowledged: never more than a server has or nobody wants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.relay.ledger import Ledger, Passed
from pathwatch.v1 import routing_pb2

Response = routing_pb2.StreamRoutingResponse


def test_a_message_of_which_nothing_was_sent_waits_for_those_before_it() -> None:
    ledger = Ledger()
    ledger.note(Passed(sequence=1, size=10))
    assert ledger.note(Passed(sequence=2, size=10, cut=5, unsent=True)) == []
    assert not ledger.owes
    answer = Response(acked_sequence=1, accepted_observations=3, late_observations=1)
    assert [message.sequence for message in ledger.heed(answer)] == [1, 2]
    told = ledger.tell(answer)
    assert (told.acked_sequence, told.accepted_observations, told.late_observations) == (2, 8, 1)


def test_with_nothing_before_it_the_rank_is_told_at_once() -> None:
    ledger = Ledger()
    ledger.heed(Response(acked_sequence=6))
    ledger.tell(Response(acked_sequence=6))
    (settled,) = ledger.note(Passed(sequence=7, size=10, cut=2, unsent=True))
    assert settled.sequence == 7
    assert ledger.owes
    assert ledger.tell(None) == Response(acked_sequence=7, accepted_observations=2)
    assert not ledger.owes


def test_what_was_cut_of_a_refused_message_was_not_taken_in() -> None:
    ledger = Ledger()
    ledger.note(Passed(sequence=1, size=10, cut=4))
    refusal = Response(acked_sequence=1, rejections=[routing_pb2.Rejection(sequence=1, code=3)])
    (message,) = ledger.heed(refusal)
    assert message.rejected
    assert ledger.tell(refusal) == refusal


def test_a_message_that_is_refused_and_not_acknowledged_is_done_with() -> None:
    """No server counts as far as that."""
    ledger = Ledger()
    ledger.note(Passed(sequence=2**63, size=10))
    ledger.note(Passed(sequence=1, size=10))
    rejection = routing_pb2.Rejection(sequence=2**63)
    assert [m.sequence for m in ledger.heed(Response(rejections=[rejection]))] == [2**63]
    assert [m.sequence for m in ledger.heed(Response(acked_sequence=1))] == [1]
    assert ledger.tell(None).acked_sequence == 1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_acknowledgements_follow_the_server(messages: list[tuple[bool, bool]]) -> None:
    """Told: the largest sequence up to which each message was acknowledged by the server, or not sent at all.

    Of each message: whether it is not sent, and whether the server then has all that was.
    """
    ledger, acked, told = Ledger(), 0, 0
    for noted, (unsent, answers) in enumerate(messages, start=1):
        ledger.note(Passed(sequence=noted, size=1, unsent=unsent))
        if answers:
            acked = max((n for n in range(1, noted + 1) if not messages[n - 1][0]), default=0)
            ledger.heed(Response(acked_sequence=acked))
        done = [n <= acked or messages[n - 1][0] for n in range(1, noted + 1)]
        expected = done.index(False) if False in done else noted
        assert ledger.owes == (expected > told)
        told = ledger.tell(None).acked_sequence
        assert told == expected
        assert [message.sequence for message in ledger.open] == list(range(expected + 1, noted + 1))
