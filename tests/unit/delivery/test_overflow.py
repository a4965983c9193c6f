"""Subscriptions that have no room: their topic goes on for all others, and they miss nothing and get nothing twice."""

import contextlib
import logging

import pytest
from support.one_node import open_node, pass_time

from dropr_core.api.consumer import Consumer
from dropr_core.api.subscriptions import Subscription, Subscriptions, is_overflow
from dropr_core.contracts.storage import Job, Selection
from dropr_core.delivery.fan_out import FanOut
from dropr_core.errors import DroprError, UsageError
from dropr_core.model import envelope
from dropr_core.model.message import Message, State
from dropr_core.testing.builders import new_id

LOG = logging.getLogger("test.overflow")
PEERS = {"berlin": {"url": "http://127.0.0.1:9", "key": "k" * 40, "max_messages": 2}}


@pytest.fixture
def make(tmp_path):
    """A node with the topic `prices`; ``channels``: their rules."""
    with contextlib.ExitStack() as stack:
        yield lambda **channels: stack.enter_context(
            open_node(tmp_path, topics={"prices": {}}, channels=channels, peers=PEERS, groups={})
        )


class Thread:
    """Turns of the process that copies, with the consumer that it would have."""

    def __init__(self, node):
        self.node, self.fan_out = node, FanOut(node.runtime, LOG)
        self.fan_out.look()

    def work(self):
        """Until there is nothing to do now."""
        for _ in range(60):
            consumer = Consumer(self.node.runtime, self.fan_out.channels())
            try:
                if not self.fan_out.turn(consumer):
                    return
            finally:
                consumer.close()
        raise AssertionError("it never comes to an end")


def publish(node, count, **options):
    for number in range(count):
        node.publish("prices", b"%d" % number, **options)


def bodies(node, channel):
    return [received.body for received in node.receive(channel, wait=0)]


def wanted(count):
    return [b"%d" % number for number in range(count)]


def test_a_full_subscription_holds_up_no_other_one(make):
    """The others get all of it in the same turn; it gets what it has room for, and the rest in order later."""
    node = make(**{"prices/small": {"max_messages": 3}})
    fast, small = node.subscribe("prices", "fast"), node.subscribe("prices", "small")
    publish(node, 10)
    thread, got = Thread(node), []
    thread.work()
    assert bodies(node, fast) == wanted(10)
    for _ in range(5):
        got.append(bodies(node, small))
        pass_time(node, 10)
        thread.work()
    assert [one for some in got for one in some] == wanted(10)
    assert max(map(len, got)) == 3
    assert thread.fan_out.channels() == ["prices", "dropr/topics"]


def test_a_peer_without_room_holds_up_no_subscription(make):
    """What the outbox would not take for it waits in this node, and goes out once, in order, when there is room."""
    node = make()
    fast = node.subscribe("prices", "fast")
    Subscriptions(node.runtime).add(Subscription("prices", "audit", "berlin"))
    publish(node, 7)
    thread, sent = Thread(node), []
    for _ in range(6):
        thread.work()
        for _, delivery in node.outbox.scan(Selection(states=frozenset({State.QUEUED}))):
            sent.append(delivery.id)
            node.outbox.cancel(delivery.id)  # in place of its being shipped
        pass_time(node, 10)
    assert bodies(node, fast) == wanted(7)
    assert len(set(sent)) == len(sent) == 7
    assert not bodies(node, Subscription("prices", "audit", "berlin").overflow)


def test_what_is_urgent_is_first_among_what_waits(make):
    """An overflow queue has the order of its topic: by priority, then arrival."""
    node = make(**{"prices/small": {"max_messages": 1}})
    small = node.subscribe("prices", "small")
    thread, got = Thread(node), []
    publish(node, 3)
    thread.work()
    node.publish("prices", b"urgent", priority=0)
    for _ in range(5):
        thread.work()
        got += bodies(node, small)
        pass_time(node, 10)
    assert got == [b"0", b"urgent", b"1", b"2"]


def test_facts_of_a_message_stay_as_if_there_had_been_room(make):
    """Headers, key, rank, the number of hops and what is left of its time."""
    node = make(**{"prices/small": {"max_messages": 1}})
    small = node.subscribe("prices", "small")
    publish(node, 2, headers={"n": "1"}, key="pen", rank=70_000, expires_in=100.0)
    thread, got = Thread(node), []
    for _ in range(4):
        thread.work()
        got += list(node.receive(small, wait=0))
        pass_time(node, 10)
    first, second = ((one.message.headers, one.message.key, one.claim.rank, one.message.hops) for one in got)
    assert first == second
    assert second[0] == {"n": "1"}
    assert 60 < got[1].message.expires_in < 100


def test_large_bodies_wait_too(make):
    """A body that is a file of its own reaches the subscription when there is room."""
    node = make(**{"prices/small": {"max_messages": 1}})
    small = node.subscribe("prices", "small")
    for letter in (b"a", b"b"):
        node.publish("prices", letter * 200_000)
    thread, got = Thread(node), []
    for _ in range(3):
        thread.work()
        got += bodies(node, small)
        pass_time(node, 10)
    assert got == [b"a" * 200_000, b"b" * 200_000]


def test_the_limit_of_the_topic_bounds_what_waits(make):
    """Where its overflow queue is as long as the topic may be, the topic rests, fills, and `publish` says so."""
    node = make(prices={"max_messages": 4}, **{"prices/small": {"max_messages": 1}})
    fast, small = node.subscribe("prices", "fast"), node.subscribe("prices", "small")
    thread, published = Thread(node), 0
    with pytest.raises(DroprError, match="over the limit of 4"):
        for _ in range(20):
            node.publish("prices", b"%d" % published)
            published += 1
            thread.work()
    assert published == 1 + 4 + 4
    got = []
    for _ in range(12):
        got += bodies(node, small)
        pass_time(node, 10)
        thread.work()
    assert got == bodies(node, fast) == wanted(published)


def test_who_goes_on_after_a_restart_knows_who_is_behind(make):
    """Nothing overtakes what waited before, though another process copies now."""
    node = make(**{"prices/small": {"max_messages": 1}})
    small = node.subscribe("prices", "small")
    publish(node, 3)
    Thread(node).work()
    got = bodies(node, small)
    node.publish("prices", b"3")
    for _ in range(5):
        Thread(node).work()
        got += bodies(node, small)
    assert got == wanted(4)


def test_a_message_larger_than_the_limit_is_a_dead_letter_and_the_others_go_on(make):
    """It can never have room: it is buried with the reason, and can be redriven once the limit was raised."""
    node = make(**{"prices/small": {"max_bytes": "3000B"}})
    small = node.subscribe("prices", "small")
    for body in (b"0", b"x" * 5000, b"1"):
        node.publish("prices", body)
    thread, got = Thread(node), []
    for _ in range(4):
        thread.work()
        got += bodies(node, small)
        pass_time(node, 10)
    assert got == [b"0", b"1"]
    (dead,) = node.inbox.scan(Selection(states=frozenset({State.BURIED})))
    assert "raise the limit" in dead.reason
    assert is_overflow(dead.channel)


def test_unsubscribing_discards_what_waits_for_room(make):
    """Its copies are gone, those that found no room as well, also where another node had subscribed."""
    node = make(**{"prices/small": {"max_messages": 1}})
    node.subscribe("prices", "small")
    there = Subscription("prices", "audit", "berlin")
    Subscriptions(node.runtime).add(there)
    publish(node, 5)
    thread = Thread(node)
    thread.work()
    assert node.unsubscribe("prices", "small") == 5
    Subscriptions(node.runtime).remove(there)
    pass_time(node, 10)
    thread.work()
    assert node.inbox.counts().get(there.overflow, {}).get("ready", 0) == 0


@pytest.mark.parametrize("topic", ["dropr/overflow", "dropr/overflow/prices", "dropr/overflow-to/berlin"])
def test_overflow_queues_are_nobodys_subscriptions(make, topic):
    """Such a name would mix copies of others into them."""
    with pytest.raises(UsageError, match="another name"):
        make().subscribe(topic, "mine")


def test_names_of_overflow_queues_are_channels_however_long(make):
    """A topic may have the longest name that there is."""
    long = Subscription("t" * 130, "n" * 64, "p" * 60)
    node = make()
    node.put(b"x", channel=long.overflow)
    assert is_overflow(long.overflow)
    assert long.overflow != Subscription("t" * 130, "n" * 64).overflow


def test_nobody_sends_through_this_node_by_way_of_an_overflow_queue(make):
    """What a peer puts there is not copied on, neither to a subscription nor to another peer: it is buried."""
    node = make(**{"prices/small": {"max_messages": 1}})
    there = Subscription("prices", "audit", "berlin")
    Subscriptions(node.runtime).add(there)
    small = node.subscribe("prices", "small")
    for channel in (Subscription("prices", "small").overflow, there.overflow):
        message = Message(id=new_id(), sender="eve", channel=channel)
        node.inbox.put(channel, 5, "eve", [Job(message.message_id, envelope.encode(message, b"x"))])
    Thread(node).work()
    assert bodies(node, small) == []
    assert [one for _, one in node.outbox.scan(Selection())] == []
    dead = list(node.inbox.scan(Selection(states=frozenset({State.BURIED}))))
    assert ["makes itself" in one.reason for one in dead] == [True, True]
