"""The puller fetches: when it asks, when it rests, what it does with answers and a store that fails."""

import random

import pytest
from support.lanes import LOG, SHOP, THERE, Node, ident

from dropr_core.contracts.storage import Ack
from dropr_core.delivery.puller import Puller
from dropr_core.errors import Refused, Unanswered, WriteFailed
from dropr_core.model import envelope, topics
from dropr_core.model.backoff import FIRST_CONTACT, Backoff
from dropr_core.model.message import Message
from dropr_core.protocol import messages as wire
from dropr_core.system.clock import FakeClock

WELCOME = wire.Welcome(1, b"s" * 16, b"session", b"inbox---", 1 << 20, 1000, 1 << 30)
STORE = b"store--1"


class Talk:
    """A peer that answers nothing by itself: the test does."""

    def __init__(self):
        self.session, self.asked = b"", []

    def ask(self, verb, value, shape, done, **_more):
        """Remember what was asked."""
        self.asked.append((verb, value, done))

    def answer(self, value):
        """Answer the oldest question; what it was."""
        _verb, question, done = self.asked.pop(0)
        done(value)
        return question

    def close(self):
        """Nothing to give up."""


class Fetching(Node):
    """A node with a puller whose peer is the test."""

    def __init__(self, clock, allows=lambda _channel: True):
        super().__init__(THERE, SHOP, clock)
        self.talk, self.notified = Talk(), []
        self.puller = Puller(
            SHOP, self.talk, self.inbox, clock, node_id=b"f" * 16, allows=allows, max_body=1 << 20,
            backoff=Backoff(1.0, 600.0), rng=random.Random(1), notify=self.notified.append, event=self.event, log=LOG,
        )  # fmt: skip

    def greeted(self):
        """After the greeting: the fetch that waits."""
        self.puller.turn()
        self.talk.answer(WELCOME)
        self.puller.turn()
        return self


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def node(clock):
    return Fetching(clock)


def part(*numbers, channel="orders", receipt=False, after=0):
    """A lane's share of an answer, with the messages of these numbers."""
    envelopes = [envelope.encode(Message(id=ident(n), sender=SHOP, channel=channel, priority=5, receipt=receipt), b"x")
                 for n in numbers]  # fmt: skip
    return wire.LanePart(channel, 5, (after, ident(after)), (numbers[-1], ident(numbers[-1])), envelopes)


def mail(*parts):
    return wire.Fetched(STORE, list(parts), wire.Cursor(b"", 0))


def test_it_greets_before_it_fetches_and_asks_one_thing_at_a_time(node):
    """However often it has its turn."""
    for _ in range(3):
        node.puller.turn()
    assert [verb for verb, _, _ in node.talk.asked] == [wire.HELLO]
    node.talk.answer(WELCOME)
    for _ in range(3):
        node.puller.turn()
    assert [verb for verb, _, _ in node.talk.asked] == [wire.FETCH]


def test_what_comes_is_taken_in_and_acknowledged_by_the_next_heads(node):
    """Consumers of its channel are woken; the next question says how far this node is."""
    node.greeted().talk.answer(mail(part(1, 2)))
    assert node.ids == [ident(1), ident(2)]
    assert node.notified == [topics.inbox("orders")]
    node.puller.turn()
    assert node.talk.asked[0][1].heads == [(STORE, "orders", 5, 2, ident(2))]


def test_what_was_fetched_is_told_as_what_was_pushed(node):
    """Observers hear of each batch that entered the queue, with its messages, and may look at them again and again."""
    node.greeted().talk.answer(mail(part(1, 2)))
    (told,) = [details for event, details in node.events if event == "batch_accepted"]
    assert (told["side"], told["peer"], told["count"]) == ("inbox", SHOP, 2)
    for _ in range(2):
        assert [(one.id, one.sender, one.channel) for one in told["messages"]] == [
            (ident(1), SHOP, "orders"), (ident(2), SHOP, "orders"),
        ]  # fmt: skip


def test_an_answer_without_mail_is_followed_by_the_next_poll(node):
    """A long poll that ended with nothing is no failure."""
    node.greeted().talk.answer(mail())
    assert node.puller.turn() is None
    assert [verb for verb, _, _ in node.talk.asked] == [wire.FETCH]
    assert node.puller.failures == 0


def test_receipts_go_beside_the_long_poll_and_until_the_peer_has_them(node):
    """What it has on stable storage is not told again; what got lost on the way is."""
    node.greeted().talk.answer(mail(part(1, receipt=True)))
    node.inbox.settle([Ack(claim, b"done") for claim in node.inbox.claim(["orders"], 10, node.consumer)])
    node.inbox.flush()
    node.puller.turn()
    fetch, tell = (question for _, question, _ in node.talk.asked)
    assert (fetch.outcomes, tell.wait) == (None, 0.0)
    assert [row.result for row in tell.outcomes.rows] == [b"done"]
    node.puller.turn()
    assert len(node.talk.asked) == 2, "told twice at once"
    node.talk.asked.pop(0)
    node.talk.answer(wire.Fetched(STORE, [], wire.Cursor(b"", 0)))
    node.puller.turn()
    again = node.talk.asked.pop(0)[1]
    assert [row.result for row in again.outcomes.rows] == [b"done"]


def test_a_failure_is_rested_from_longer_each_time_and_told_once(node, clock):
    """Before the first contact a few seconds at most: somebody may just be setting the peer up."""
    rests = []
    for _ in range(12):
        node.puller.turn()
        node.talk.answer(Unanswered("refused"))
        rests.append(node.puller.rest_until - clock.now())
        assert node.puller.turn() == node.puller.rest_until
        assert not node.talk.asked
        clock.advance(rests[-1])
    assert max(rests) <= FIRST_CONTACT
    assert node.told("peer_down") == 1
    assert node.puller.down_reason == "refused"
    node.greeted()
    assert node.talk.asked[0][1].wait == 0
    node.talk.answer(mail())
    assert (node.puller.failures, node.puller.down_reason, node.told("peer_up")) == (0, None, 1)


def test_no_rest_is_longer_than_the_outage_so_far(clock):
    """The first rest is a second at most, each later one as long as it has failed: whatever the draws are."""
    for seed in range(50):
        node, began = Fetching(clock), clock.now()
        node.puller._rng = random.Random(seed)
        for _ in range(6):
            node.puller.turn()
            node.talk.answer(Unanswered("gone"))
            rest, lasted = node.puller.rest_until - clock.now(), clock.now() - began
            assert 0.0 < rest <= max(1.0, lasted)
            clock.advance(rest)


def test_a_peer_whose_store_fails_is_down_once_and_not_up_with_each_greeting(node, clock):
    """It greets, and refuses what is asked: one word when that begins and one when it ends, however many tries."""
    node.greeted()
    for _ in range(10):
        node.talk.answer(Refused("busy", "StoreReadOnly", signed=True))
        clock.advance(10)
        node.puller.turn()
        node.greeted()
    assert (node.told("peer_down"), node.told("peer_up")) == (1, 0)
    node.talk.answer(mail())
    assert (node.told("peer_down"), node.told("peer_up")) == (1, 1)


def test_a_peer_that_has_answered_before_may_be_rested_from_for_long(node, clock):
    """Whether in this life or, known by its lanes, in an earlier one."""
    node.greeted()
    for _ in range(12):
        clock.advance(1000)
        node.puller.turn()
        node.talk.answer(Unanswered("gone"))
    assert node.puller.rest_until - clock.now() > FIRST_CONTACT
    later = Fetching(clock)
    later.greeted().talk.answer(mail(part(1)))
    reborn = Fetching(clock)
    reborn.begin(later.data)
    reborn.puller._inbox = reborn.inbox
    for _ in range(12):
        clock.advance(1000)
        reborn.puller.turn()
        reborn.talk.answer(Unanswered("gone"))
    assert reborn.puller.rest_until - clock.now() > FIRST_CONTACT


def test_the_rest_can_be_ended(node):
    """By a person, or by the peer's word that it is back."""
    node.puller.turn()
    node.talk.answer(Unanswered("refused"))
    node.puller.reset_backoff()
    node.puller.turn()
    assert [verb for verb, _, _ in node.talk.asked] == [wire.HELLO]


def test_a_new_session_is_no_failure(node):
    """The peer was restarted: it is greeted again at once."""
    node.greeted().talk.answer(Refused("new_session", "", signed=True))
    assert node.puller.failures == 0
    node.puller.turn()
    assert [verb for verb, _, _ in node.talk.asked] == [wire.HELLO]


def test_an_unsigned_word_about_the_session_is_a_failure(node):
    """Anybody on the road could say it, and have us greet for ever."""
    node.greeted().talk.answer(Refused("new_session", "", signed=False))
    assert node.puller.failures == 1


def test_a_store_that_fails_loses_nothing(node, clock, monkeypatch):
    """Nothing was acknowledged: after a rest the same messages are asked for again. The peer is not to blame."""
    node.greeted()
    with monkeypatch.context() as patch:
        patch.setattr(node.inbox, "accept", lambda _arrivals: (_ for _ in ()).throw(WriteFailed("disk on fire")))
        node.talk.answer(mail(part(1)))
    assert (node.told("store_trouble"), node.puller.down_reason) == (1, None)
    clock.advance(1000)
    node.puller.turn()
    assert node.talk.asked[0][1].heads == []
    node.talk.answer(mail(part(1)))
    assert node.ids == [ident(1)]


def test_a_channel_that_is_not_allowed_is_refused_and_the_lane_goes_on(clock):
    """What the configuration does not let in never stands in the queue, and is not asked for for ever."""
    node = Fetching(clock, allows=lambda channel: channel == "news")
    node.greeted().talk.answer(mail(part(1), part(1, channel="news")))
    assert [job.id for _, job in node.entered] == [ident(1)]
    node.puller.turn()
    heads = {(channel, sequence) for _, channel, _, sequence, _ in node.talk.asked[0][1].heads}
    assert ("news", 1) in heads


def test_what_a_fetching_node_refuses_is_one_line_for_each_reason(clock, caplog):
    """A peer that sends damaged envelopes again and again fills no log."""
    node = Fetching(clock).greeted()
    damaged = part(1, 2, 3)
    damaged.envelopes[:] = [b"no envelope"] * 3
    node.talk.answer(mail(damaged))
    lines = [message for message in caplog.messages if "refused" in message]
    assert len(lines) == 1
    assert lines[0].endswith("(and 2 more since the last line of this kind)")
