"""Copies of what is published: one for each subscription, whatever dies when."""

import json
import logging

import pytest
from support.one_node import open_node, pass_time

from dropr_core.api.consumer import Consumer
from dropr_core.api.subscriptions import REQUESTS, Subscription, Subscriptions, request
from dropr_core.contracts.storage import START, Arrival, Job, Selection
from dropr_core.delivery import fan_out
from dropr_core.delivery.copy_log import LANES
from dropr_core.delivery.fan_out import FanOut
from dropr_core.errors import QueueFull, UsageError
from dropr_core.model import envelope
from dropr_core.model.message import Message, State
from dropr_core.model.names import Head, SourceLane
from dropr_core.testing.builders import new_id

LOG = logging.getLogger("test")
TOPICS = {"topics": {"prices": {"join": ["ber*"]}, "quiet": {}}}


class Dies(Exception):
    """The process dies here."""


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, **TOPICS) as node:
        yield node


@pytest.fixture
def turn(node):
    """One turn of a process that copies."""
    copier = FanOut(node.runtime, LOG)

    def turn():
        consumer = Consumer(node.runtime, [*copier.subscriptions.topics(), REQUESTS])
        try:
            return copier.turn(consumer)
        finally:
            consumer.close()

    turn.fan_out = copier
    return turn


def bodies(node, channel):
    return [received.body for received in node.receive(channel, wait=0)]


def test_each_subscription_gets_a_copy(node, turn):
    """In order, with headers, priority and rank; what was published before it does not come."""
    node.publish("prices", b"before")
    assert turn()
    one, two = node.subscribe("prices", "one"), node.subscribe("prices", "two")
    for number in range(5):
        node.publish("prices", b"%d" % number, headers={"n": str(number)}, rank=70_000)
    assert turn()
    assert not turn()
    assert bodies(node, one) == [b"%d" % number for number in range(5)]
    got = list(node.receive(two, wait=0))
    assert [(one.body, one.headers["n"], one.claim.rank) for one in got] == [
        (b"%d" % number, str(number), 70_000) for number in range(5)
    ]
    assert len({one.id for one in got}) == 5


def test_a_subscriber_elsewhere_gets_copies_through_the_outbox(node, turn):
    """A peer that the topic lets in asks, and from then on its copies wait to be shipped to it."""
    Subscriptions(node.runtime).add(Subscription("prices", "audit", "berlin"))
    node.publish("prices", b"one")
    turn()
    (only,) = [delivery for _, delivery in node.outbox.scan(Selection())]
    assert (only.peer, only.channel, only.state) == ("berlin", "prices/audit", State.QUEUED)


@pytest.mark.parametrize(
    ("topic", "sender", "joins"),
    [("prices", "berlin", True), ("prices", "rome", False), ("quiet", "berlin", False), ("none", "berlin", False)],
)
def test_only_who_may_joins(node, turn, topic, sender, joins):
    """`join` names who may subscribe; to anybody else the request fails, with the reason."""
    message = Message(id=new_id(), sender=sender, channel=REQUESTS)
    data = envelope.encode(message, request("subscribe", topic, "audit"))
    node.inbox.put(REQUESTS, 5, sender, [Job(message.message_id, data)])
    turn()
    assert [one.peer for one in Subscriptions(node.runtime).of(topic)] == ([sender] if joins else [])
    buried = node.inbox.scan(Selection(states=frozenset({State.BURIED})))
    assert [sender in one.reason for one in buried] == ([] if joins else [True])


@pytest.mark.parametrize("moment", ["before the note", "before the outbox", "before the inbox", "before the answer",
                                    "before the acknowledgement"])  # fmt: skip
def test_a_death_at_any_moment_neither_loses_nor_doubles(node, turn, monkeypatch, moment):
    """Whoever comes after the dead one copies what it had not copied, and nothing else; done copies stay done."""
    here = node.subscribe("prices", "here")
    Subscriptions(node.runtime).add(Subscription("prices", "there", "berlin"))
    for number in range(3):
        node.publish("prices", b"%d" % number)

    def die(*_):
        raise Dies

    with monkeypatch.context() as patch:
        copier, inbox = turn.fan_out, node.runtime.storage.inbox
        if moment == "before the note":
            patch.setattr(copier._copies, "begin", die)
        elif moment == "before the outbox":
            patch.setattr(copier._sender, "store", die)
        elif moment == "before the inbox":
            patch.setattr(inbox, "accept_together", die)
        elif moment == "before the answer":
            accept = inbox.accept_together
            patch.setattr(inbox, "accept_together", lambda arrivals: (accept(arrivals), die()))
        else:
            patch.setattr(Consumer, "acknowledge", die)
        with pytest.raises(Dies):
            turn()
    got = bodies(node, here)  # a fast subscriber is done with its copies before anybody repeats the batch
    node.publish("prices", b"3", rank=3)  # and comes first of the next batch
    while turn():
        pass
    got += bodies(node, here)
    assert sorted(got) == [b"0", b"1", b"2", b"3"]
    assert len([delivery for _, delivery in node.outbox.scan(Selection())]) == 4


def test_what_a_dead_one_copied_is_known_however_late_it_comes_again(node, turn, monkeypatch):
    """Its messages wait behind several batches of more urgent ones, and are not copied once more."""
    channel = node.subscribe("prices", "one")
    monkeypatch.setattr(fan_out, "BATCH", 2)
    for number in range(2):
        node.publish("prices", b"%d" % number)

    def die(*_):
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(Consumer, "acknowledge", die)
        with pytest.raises(Dies):
            turn()
    for number in range(2, 6):
        node.publish("prices", b"%d" % number, priority=1)
    while turn():
        pass
    assert sorted(bodies(node, channel)) == [b"%d" % number for number in range(6)]


@pytest.mark.parametrize("copied", [True, False])
def test_the_note_of_an_older_dropr_is_understood(node, turn, monkeypatch, copied):
    """It names the head that its batch had: if it is there the batch was copied, else it was not."""
    channel = node.subscribe("prices", "one")
    node.publish("prices", b"old")
    (info,) = node.inbox.scan(Selection(channel="prices"))
    lane, head = SourceLane(node.name, LANES, REQUESTS, 0), Head(1, info.id)
    if copied:
        node.inbox.accept([Arrival(lane, START, head, [])])
    note = {"version": 1, "sequence": 1, "id": info.id.hex(), "numbers": [info.number]}
    (node.runtime.config.data / "topics.batch").write_text(json.dumps(note))
    node.publish("prices", b"new")
    while turn():
        pass
    assert bodies(node, channel) == ([b"new"] if copied else [b"old", b"new"])


@pytest.mark.parametrize("text", ["", "\xff", "[]", '{"version": 3, "sequence": 1, "id": "", "numbers": []}'])
def test_a_note_that_cannot_be_read_stops_nothing(node, turn, text):
    """What it said may be copied twice; that is said, and copying goes on."""
    channel = node.subscribe("prices", "one")
    (node.runtime.config.data / "topics.batch").write_text(text, encoding="latin-1")
    node.publish("prices", b"x")
    turn()
    assert bodies(node, channel) == [b"x"]


def test_a_note_of_another_time_stops_nothing(node, turn, caplog):
    """The store came out of a backup and the note did not: that is said, and copying goes on."""
    channel = node.subscribe("prices", "one")
    for number in range(3):
        node.publish("prices", b"%d" % number)
        turn()
        if number == 0:
            old = (node.runtime.config.data / "topics.batch").read_text()
    (node.runtime.config.data / "topics.batch").write_text(old)
    node.publish("prices", b"3")
    turn()
    assert bodies(node, channel) == [b"%d" % number for number in range(4)]
    assert "not of one time" in caplog.text


def test_without_room_nothing_is_lost(node, turn, monkeypatch):
    """While copies find no room all of the batch waits, and goes on by itself."""
    channel = node.subscribe("prices", "one")
    node.publish("prices", b"one")

    def full(_):
        raise QueueFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(node.runtime.storage.inbox, "accept_together", full)
        turn()
    pass_time(node, 10)
    turn()
    assert bodies(node, channel) == [b"one"]


@pytest.mark.parametrize("full", ["channel", "peer"])
def test_a_full_subscription_holds_up_no_other_topic(tmp_path, full):
    """However much waits for it: what is published on others is copied in the same turns."""
    more = {
        "channels": {"prices/small": {"max_messages": 1}},
        "peers": {"berlin": {"url": "http://127.0.0.1:9", "key": "k" * 40, "max_messages": 1}},
        "groups": {},
    }
    with open_node(tmp_path, **TOPICS, **more) as node:
        fast = node.subscribe("quiet", "fast")
        Subscriptions(node.runtime).add(Subscription("prices", "small", "berlin" if full == "peer" else ""))
        for number in range(20):
            node.publish("prices", b"%d" % number)
        copier, consumer = FanOut(node.runtime, LOG), Consumer(node.runtime, ["prices", "quiet"])
        for number in range(3):
            node.publish("quiet", b"%d" % number)
            copier.turn(consumer)
            assert bodies(node, fast) == [b"%d" % number]
            pass_time(node, number * 10)
        consumer.close()


def test_unsubscribing_discards_what_waits(node, turn):
    """Its copies are gone, and no new ones come; other subscriptions keep theirs."""
    one, two = node.subscribe("prices", "one"), node.subscribe("prices", "two")
    node.publish("prices", b"x")
    turn()
    assert node.unsubscribe("prices", "one") == 1
    node.publish("prices", b"y")
    turn()
    assert bodies(node, one) == []
    assert bodies(node, two) == [b"x", b"y"]


def test_large_bodies_are_copied_too(node, turn):
    """A body that is a file of its own reaches each subscription."""
    one, two = node.subscribe("prices", "one"), node.subscribe("prices", "two")
    node.publish("prices", b"x" * 200_000)
    turn()
    assert bodies(node, one) == bodies(node, two) == [b"x" * 200_000]


def test_an_unknown_topic_is_a_mistake(node):
    """Nobody publishes into the void by a wrong name; and a subscription needs a good one."""
    with pytest.raises(UsageError, match="no topic"):
        node.publish("prizes", b"x")
    with pytest.raises(UsageError, match="its name"):
        node.subscribe("prices", "a/b")


@pytest.mark.parametrize(("topic", "name"), [("dropr", "topics"), ("dropr/topics", "mine")])
def test_the_channel_of_requests_is_nobodys_subscription(node, topic, name):
    """Copies would enter by the lane that says which batch is copied, and nobody would know that any more."""
    with pytest.raises(UsageError, match="another name"):
        node.subscribe(topic, name)


def test_a_topic_whose_channel_leads_elsewhere_is_joined_there(tmp_path):
    """publish and subscribe go where the route leads, without a word in the code."""
    with open_node(tmp_path, channels={"news": {"to": "berlin"}}) as node:
        assert node.subscribe("news", "mine") == "news/mine"
        node.publish("news", b"x")
        sent = [(delivery.peer, delivery.channel) for _, delivery in node.outbox.scan(Selection())]
        assert sorted(sent) == [("berlin", REQUESTS), ("berlin", "news")]
        assert Subscriptions(node.runtime).all() == []


def test_subscriptions_survive_the_node(tmp_path):
    """They are durable."""
    with open_node(tmp_path, **TOPICS) as node:
        node.subscribe("prices", "one")
    with open_node(tmp_path, **TOPICS) as node:
        assert Subscriptions(node.runtime).all() == [Subscription("prices", "one")]
