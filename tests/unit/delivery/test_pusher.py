"""The pusher carries orders out: what it takes, what it asks, what it does with answers that do not fit."""

import logging
import random

import msgspec
import pytest
from support.lanes import LOG, SHOP, THERE, Node, Sender, drain, ident, verb

from dropr_core.contracts.storage import PeerState
from dropr_core.delivery.push_budget import ALL_PUSHES, SMALL, PushBudget
from dropr_core.delivery.pusher import Pusher
from dropr_core.errors import Refused, Unanswered, WriteFailed
from dropr_core.model.names import START, Head, Lane
from dropr_core.protocol import messages as wire
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.system.clock import FakeClock
from dropr_core.system.line_rate import EVERY

ORDERS = Lane(THERE, "orders", 5)
WELCOME = wire.Welcome(1, b"t" * 16, b"session", b"inbox---", 1 << 20, 1000, 1 << 30)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def sender(clock):
    return Sender(clock, Node(THERE, SHOP, clock))


class Talk:
    """A peer that answers nothing by itself: the test does."""

    def __init__(self):
        self.session, self.asked = b"", []

    def ask(self, verb, value, shape, done, **_more):
        """Remember what was asked."""
        self.asked.append((verb, value, done))

    def answer(self, value):
        """Answer the oldest question; what it was."""
        asked, question, done = self.asked.pop(0)
        done(value)
        return asked, question

    def close(self):
        """Nothing to give up."""


@pytest.fixture
def talk():
    return Talk()


@pytest.fixture
def pusher(sender, clock, talk):
    """A pusher over the sender's outbox whose peer is the test."""
    return Pusher(
        Link(THERE, LinkSettings(), random.Random(1)), talk, sender.outbox, clock, node_id=b"i" * 16,
        on_reset="resend", batch_bytes=1 << 20, notify=lambda _topic: None, event=sender.event, log=LOG,
    )  # fmt: skip


def turn(pusher, sender):
    return pusher.turn(sender.outbox.lanes(THERE), sender.outbox.peers().get(THERE, PeerState()))


def to_the_push(pusher, sender, talk, welcome=WELCOME):
    """Greeted, and probed where the link wants that; the push that follows."""
    for _ in range(10):
        turn(pusher, sender)
        if talk.asked and talk.asked[0][0] == wire.PUSH:
            return talk.asked[0][1]
        if talk.asked and talk.asked[0][0] == wire.HELLO:
            talk.answer(welcome)
        elif talk.asked and talk.asked[0][0] == wire.HEADS:
            talk.answer(wire.HeadsAnswer([(0, START.id) for _ in talk.asked[0][1].lanes]))
    raise AssertionError("no push came")


def test_without_anything_to_send_nobody_is_asked(pusher, sender, talk):
    """An idle peer costs nothing."""
    assert turn(pusher, sender) is None
    assert talk.asked == []


def test_a_held_peer_is_sent_nothing(pusher, sender, talk):
    """Whatever waits for it; released, it flows."""
    sender.send(1)
    sender.outbox.hold(THERE, "test")
    turn(pusher, sender)
    assert talk.asked == []
    sender.outbox.release(THERE)
    assert to_the_push(pusher, sender, talk).store == sender.outbox.store_id


def test_verdicts_for_other_lanes_than_were_pushed_are_no_answer(pusher, sender, talk):
    """One verdict too many settles nothing: a peer that miscounts may mean anything."""
    sender.send(1)
    push = to_the_push(pusher, sender, talk)
    verdict = wire.PushResult(taken=True, head=(1, ident(1)))
    talk.answer(wire.Pushed([verdict] * (len(push.lanes) + 1)))
    assert sender.state(1) == "queued"
    assert "verdicts for 1 lanes" in str(pusher.link.down_reason)


def test_what_the_peer_took_is_told_with_the_time_that_it_took(pusher, sender, talk, clock):
    """Those that it rejected are not among them; the time is from the request to the answer."""
    sender.send(1)
    sender.send(2)
    to_the_push(pusher, sender, talk)
    clock.advance(0.25)
    talk.answer(wire.Pushed([wire.PushResult(taken=True, head=(2, ident(2)), rejected=[(0, "bad", "no")])]))
    (told,) = [details for event, details in sender.events if event == "batch_accepted"]
    assert (told["side"], told["peer"], told["count"], told["seconds"]) == ("outbox", THERE, 1, 0.25)
    assert [one.id for one in told["messages"]] == [ident(2)]


@pytest.mark.parametrize("answer", [Unanswered("lost"), wire.Pushed([wire.PushResult(taken=True, head=(3, ident(3)))])])
def test_what_is_in_flight_is_counted_until_it_is_answered(pusher, sender, talk, answer):
    """Deliveries of a push that is under way; none of them after an answer, or after none came."""
    for number in (1, 2, 3):
        sender.send(number)
    assert pusher.in_flight == 0
    to_the_push(pusher, sender, talk)
    assert pusher.in_flight == 3
    talk.answer(answer)
    assert pusher.in_flight == 0


def test_heads_for_other_lanes_than_were_asked_are_no_answer(pusher, sender, talk):
    """They would be compared with the wrong logs."""
    sender.send(1)
    turn(pusher, sender)
    talk.answer(WELCOME)
    pusher.link.doubt({ORDERS})
    turn(pusher, sender)
    assert talk.asked[0][0] == wire.HEADS
    talk.answer(wire.HeadsAnswer([]))
    assert "heads for other lanes" in str(pusher.link.down_reason)
    assert sender.state(1) == "queued"


def test_no_more_is_taken_than_the_peer_announces(pusher, sender, talk):
    """Neither more messages nor more bytes; the rest stays for the next push."""
    for number in range(1, 11):
        sender.send(number)
    push = to_the_push(pusher, sender, talk, msgspec.structs.replace(WELCOME, batch_count=3))
    assert [len(part.envelopes) for part in push.lanes] == [3]


def test_a_failing_store_is_rested_from_and_told(pusher, sender, talk, monkeypatch, caplog):
    """Nothing was promised; after a second it is tried again, and nothing is lost."""
    sender.send(1)
    turn(pusher, sender)
    talk.answer(WELCOME)

    def fail(*_args, **_more):
        raise WriteFailed("disk on fire")

    LOG.propagate = True
    try:
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(sender.outbox, "take", fail)
            for _ in range(5):
                wakes = turn(pusher, sender)
                if talk.asked and talk.asked[0][0] == wire.HEADS:
                    talk.answer(wire.HeadsAnswer([(0, START.id) for _ in talk.asked[0][1].lanes]))
    finally:
        LOG.propagate = False
    assert sender.told("store_trouble") >= 1
    assert "disk on fire" in caplog.text
    assert wakes <= sender.clock.now() + 1.0
    assert talk.asked == []
    sender.clock.advance(1.1)
    assert to_the_push(pusher, sender, talk).lanes


def test_an_effect_that_cannot_be_stored_loses_nothing(sender, monkeypatch):
    """The peer has it and we could not write that down: the next push tells us, and it is not sent twice."""
    sender.send(1)
    flight = sender.ship()
    with monkeypatch.context() as patch:
        patch.setattr(sender.outbox, "settle", lambda *_args: (_ for _ in ()).throw(WriteFailed("disk on fire")))
        flight.carry()
        drain(sender)
    assert sender.state(1) == "queued"
    sender.flow(60, step=0.5)
    assert sender.state(1) == ""
    assert sender.server.ids == [ident(1)]


def test_a_new_session_of_the_peer_looks_at_lanes_that_only_wait(sender):
    """Nothing is to be shipped, a receipt is awaited, and the peer was wiped: it is sent again."""
    sender.send(1, receipt=True)
    sender.flow()
    assert sender.state(1) == "accepted"
    sender.server.wipe()
    sender.flow(60, step=1.0)
    assert sender.server.lives[1] and sender.server.ids == [ident(1), ident(1)]
    assert sender.told("peer_reset") == 1


def test_a_refusal_in_words_is_kept_as_the_reason(pusher, sender, talk):
    """The person who looks at the peer reads what it said."""
    sender.send(1)
    turn(pusher, sender)
    talk.answer(Refused("unauthorized", "who are you?", signed=True))
    assert "who are you?" in str(pusher.link.down_reason)
    assert sender.told("peer_down") == 1


def test_receipts_are_written_down_and_wake_who_waits(pusher, sender, talk):
    """A page of them comes with the answer to a push; the cursor goes with the next request."""
    sender.send(1, receipt=True)
    assert to_the_push(pusher, sender, talk).receipts == wire.Cursor(b"inbox---", 0)
    page = wire.Outcomes(b"inbox---", 1, [wire.OutcomeRow(1, ident(1), "processed")])
    talk.answer(wire.Pushed([wire.PushResult(taken=True, head=(1, ident(1)))], page))
    assert sender.state(1) == "processed"
    sender.send(2)
    assert to_the_push(pusher, sender, talk).receipts == wire.Cursor(b"inbox---", 1)


def test_closing_gives_up_what_is_under_way(sender):
    """Twice is nothing, and an answer that comes later harms nobody."""
    sender.send(1)
    flight = sender.ship()
    sender.pusher.close()
    sender.pusher.close()
    flight.lose(Unanswered("closed"))
    drain(sender)
    assert sender.state(1) == "queued"
    assert verb(flight) == "push"
    assert sender.outbox.lanes(THERE)[0].head == Head(0, START.id)


def test_what_a_peer_refuses_is_a_line_for_each_reason_and_a_number_a_minute(pusher, sender, talk, clock, caplog):
    """A lane of which a thousand messages are refused fills no log."""

    def refuse(first, last, *codes):
        for number in range(first, last + 1):
            sender.send(number)
        to_the_push(pusher, sender, talk)
        rejected = [(index, code, "it says") for index, code in enumerate(codes)]
        talk.answer(wire.Pushed([wire.PushResult(taken=True, head=(last, ident(last)), rejected=rejected)]))
        return [message for message in caplog.messages if "refused" in message]

    first = refuse(1, 4, "too_big", "bad", "too_big", "too_big")
    assert [line.partition(": ")[2] for line in first] == [
        "too_big: it says (and 2 more since the last line of this kind)", "bad: it says",
    ]  # fmt: skip
    assert refuse(5, 6, "bad", "bad") == first
    clock.advance(EVERY)
    assert refuse(7, 7, "bad")[-1].endswith("#7: bad: it says (and 2 more since the last line of this kind)")


def test_a_push_is_no_larger_than_the_room_that_other_peers_left(sender, clock, talk):
    """Where pushes to others fill the room a peer gets a small one at a time, and the rest of it after the answer."""
    room = PushBudget(under_way=ALL_PUSHES)
    pusher = Pusher(
        Link(THERE, LinkSettings(), random.Random(1)), talk, sender.outbox, clock, node_id=b"i" * 16, room=room,
        on_reset="resend", batch_bytes=1 << 20, notify=lambda _topic: None, event=sender.event, log=LOG,
    )  # fmt: skip
    for number in range(1, 9):
        sender.send(number, body=bytes(SMALL // 3))
    push = to_the_push(pusher, sender, talk)
    sent = len(push.lanes[0].envelopes)
    assert 1 <= sent <= 3
    assert room.under_way == ALL_PUSHES + sum(map(len, push.lanes[0].envelopes))
    turn(pusher, sender)
    assert [verb for verb, *_ in talk.asked] == [wire.PUSH], "a second one waits for the answer to the first"
    talk.answer(Unanswered("cut"))
    assert room.under_way == ALL_PUSHES
