"""What a receiver's head means for the sender's log, and what is done about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lanes import SHOP, THERE, Node, Sender, ident

from dropr_core.model.names import START, Head, Lane
from dropr_core.protocol.log_matching import HeadRelation, compare_heads
from dropr_core.protocol.reconcile import Reconciler, awaited, lane_of
from dropr_core.system.clock import FakeClock

SAME, AHEAD, LOST, FOREIGN = HeadRelation.SAME, HeadRelation.AHEAD, HeadRelation.LOST, HeadRelation.FOREIGN
ORDERS = Lane(THERE, "orders", 5)


def head(number):
    return Head(number, ident(number)) if number else START


@pytest.mark.parametrize(
    ("theirs", "ours", "last", "located", "relation"),
    [
        (head(3), head(3), 5, ident(3), SAME),
        (START, START, 0, None, SAME),
        (head(5), head(3), 5, ident(5), AHEAD),
        (head(1), head(3), 5, ident(1), LOST),
        (START, head(3), 5, None, LOST),
        (head(6), head(3), 5, None, FOREIGN),
        (Head(4, ident(99)), head(3), 5, ident(4), FOREIGN),
        (Head(3, ident(99)), head(3), 5, ident(3), FOREIGN),
        (Head(2, ident(99)), head(3), 5, ident(2), FOREIGN),
        (head(2), head(3), 5, None, LOST),
        (head(4), head(3), 5, None, FOREIGN),
    ],
    ids=["same", "empty", "lost-answer", "restored", "wiped", "beyond-the-log", "cloned-ahead", "cloned-at-the-head",
         "cloned-behind", "restored-and-forgotten-here", "not-vouched-for"],
)  # fmt: skip
def test_a_head_is_compared_by_position_and_by_the_message_that_stands_there(theirs, ours, last, located, relation):
    """A number alone proves nothing: after a roll-back another message has it."""
    assert compare_heads(theirs, ours, last, located) is relation


@pytest.mark.parametrize(
    ("theirs", "ours", "last", "located", "meaning"),
    [
        (Head(5, ident(5)), Head(5, ident(5)), 9, ident(5), HeadRelation.SAME),
        (Head(7, ident(7)), Head(5, ident(5)), 9, ident(7), HeadRelation.AHEAD),
        (Head(3, ident(3)), Head(5, ident(5)), 9, None, HeadRelation.LOST),
        (Head(3, ident(3)), Head(5, ident(5)), 9, ident(3), HeadRelation.LOST),
        (START, Head(5, ident(5)), 9, None, HeadRelation.LOST),
        (Head(7, ident(99)), Head(5, ident(5)), 9, ident(7), HeadRelation.FOREIGN),
        (Head(5, ident(99)), Head(5, ident(5)), 9, ident(5), HeadRelation.FOREIGN),
        (Head(12, ident(12)), Head(5, ident(5)), 9, None, HeadRelation.FOREIGN),
        (Head(7, ident(7)), Head(5, ident(5)), 9, None, HeadRelation.FOREIGN),
    ],
)
def test_log_matching(theirs, ours, last, located, meaning):
    """Each case of log matching: same, lost answer, wiped or restored receiver, rolled-back sender."""
    assert compare_heads(theirs, ours, last, located) is meaning


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.booleans(), st.booleans())
def test_messages_are_settled_only_when_the_receiver_has_our_message(theirs, ours, more, same, known):
    """Ahead is said only of a head within our log that names the message which we have there."""
    last = ours + more
    located = (ident(theirs) if same else ident(999)) if known else None
    relation = compare_heads(head(theirs), head(ours), last, located)
    if relation is AHEAD:
        assert ours < theirs <= last
        assert located == ident(theirs)
    if theirs > last:
        assert relation is FOREIGN


@pytest.fixture
def sender():
    clock = FakeClock()
    return Sender(clock, Node(THERE, SHOP, clock))


def apply(sender, theirs, on_reset="resend", lane=ORDERS):
    return Reconciler(sender.outbox, lane.peer, on_reset=on_reset, event=sender.event).apply(lane, theirs)


def queued(sender):
    """Numbers that would be shipped next."""
    batch = sender.outbox.take(ORDERS, 100, 1 << 20, mark_in_flight=False)
    return [] if batch is None else [int.from_bytes(entry.id, "big") for entry in batch.entries]


def settled(sender, upto, last, *, receipt=False):
    """A sender whose peer has committed up to a number."""
    for number in range(1, last + 1):
        sender.send(number, receipt=receipt)
    sender.outbox.take(ORDERS, 100, 1 << 20)
    sender.outbox.settle(ORDERS, head(upto))
    return sender


def test_the_same_head_makes_what_was_under_way_free_again(sender):
    """The push was lost, or its answer with nothing in it: it is shipped once more."""
    assert apply(settled(sender, 2, 4), head(2)) is SAME
    assert queued(sender) == [3, 4]


def test_a_head_ahead_settles_what_the_lost_answer_would_have(sender):
    """Nothing is sent twice."""
    assert apply(settled(sender, 2, 4), head(3)) is AHEAD
    assert queued(sender) == [4]
    assert sender.events == []


def test_a_peer_that_lost_messages_gets_them_again(sender):
    """What is still known here: those that wait for their receipt."""
    assert apply(settled(sender, 3, 4, receipt=True), head(1)) is LOST
    assert queued(sender) == [2, 3, 4]
    assert [(name, details["again"]) for name, details in sender.events] == [("peer_reset", 2)]


def test_or_it_is_held_if_the_configuration_says_so(sender):
    """Then a person decides; nothing is sent again by itself."""
    assert apply(settled(sender, 3, 4, receipt=True), START, on_reset="hold") is LOST
    assert sender.outbox.peers()[THERE].held
    assert queued(sender) in ([], [4])
    assert sender.told("peer_reset") == 1


def test_a_store_that_was_rolled_back_takes_new_numbers(sender):
    """Its messages have other numbers than the peer knows: nothing of them may be taken for a repetition."""
    before = settled(sender, 2, 4).outbox.store_id
    assert apply(sender, head(9)) is FOREIGN
    assert sender.outbox.store_id != before
    assert sender.told("rolled_back") == 1
    batch = sender.outbox.take(ORDERS, 100, 1 << 20)
    assert [(entry.sequence, entry.id) for entry in batch.entries] == [(1, ident(3)), (2, ident(4))]
    assert all(entry.possible_duplicate for entry in batch.entries)


def test_a_lane_without_mail_still_notices_what_its_peer_lost(sender):
    """Everything was accepted and waits for receipts; the peer begins anew."""
    settled(sender, 3, 3, receipt=True)
    assert [lane_of(delivery) for delivery in awaited(sender.outbox, THERE)] == [ORDERS] * 3
    assert apply(sender, START) is LOST
    assert queued(sender) == [1, 2, 3]


def test_a_lane_that_nobody_knows_does_nothing(sender):
    """Old news about it changes nothing."""
    assert apply(sender, head(7)) is SAME
    assert sender.events == []
