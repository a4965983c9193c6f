"""What is remembered of the talk with a peer, for people who look."""

from dropr_core.delivery.talk_record import TalkRecord
from dropr_core.errors import Refused, Unreachable
from dropr_core.model.limits import MAX_REASON
from dropr_core.system.clock import FakeClock


def test_the_last_error_and_the_last_answer_stay_with_their_times():
    """A peer that is up again still shows what went wrong last, and when."""
    clock = FakeClock()
    record = TalkRecord(clock)
    assert record.report() == {"error": "", "failed_at": None, "answered_at": None}
    failed = clock.now()
    record.note(Unreachable("no route"))
    clock.advance(10)
    record.note(object())
    assert record.report() == {"error": "no route", "failed_at": failed, "answered_at": failed + 10}


def test_a_peer_that_began_anew_made_no_error():
    """A restart of the other side makes it ask for a greeting, which is nothing to show to a person."""
    record = TalkRecord(FakeClock())
    record.note(Refused("new_session", "say hello again", signed=True))
    assert record.report()["error"] == ""
    record.note(Refused("bad_signature", "another key", signed=False))
    assert "another key" in record.report()["error"]


def test_an_endless_error_is_cut():
    """What a peer says is kept, but not all of it."""
    record = TalkRecord(FakeClock())
    record.note(Unreachable("x" * 10 * MAX_REASON))
    assert len(record.report()["error"]) <= MAX_REASON


def test_a_state_begins_when_it_is_first_seen():
    """And again when it is another one."""
    clock = FakeClock()
    record, began = TalkRecord(clock), clock.now()
    assert record.since("up") == began
    clock.advance(5)
    assert record.since("up") == began
    assert record.since("resting") == began + 5
