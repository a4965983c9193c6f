"""Processes that copy what is published, of which one stands still for as long as a test wants.

Owns `Copier`, what is stopped of it (each call to the store), and `Published`, one topic with its subscribers and what
they got. Must not know the storage.
"""

import contextlib
import logging

from dropr_core.api.consumer import Consumer
from dropr_core.api.subscriptions import Subscription, Subscriptions
from dropr_core.contracts.storage import Selection
from dropr_core.delivery.fan_out import FanOut
from dropr_core.errors import DroprError
from dropr_core.model import envelope

LOG = logging.getLogger("test.topics")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False
CALLS = {
    "inbox": ("claim", "heads", "scan", "find", "accept", "accept_together", "acknowledge", "flush"),
    "outbox": ("append",),
    "shared": ("load", "replace"),
}
"""What a copier asks of its storage."""
WRITES = frozenset({"claim", "accept", "accept_together", "acknowledge", "append", "replace"})
"""Of these, what changes something."""
PEER = "berlin"


class Dies(Exception):
    """The process dies here."""


class Copier:
    """A process of a machine."""

    def __init__(self, node):
        self.node = node
        self.fan_out = FanOut(node.runtime, LOG)
        self.consumer = None

    def channels(self, topic):
        """What it takes from."""
        return [topic]

    def turn(self, topic):
        """One turn; whether there was anything."""
        self.consumer = Consumer(self.node.runtime, self.channels(topic))
        try:
            return self.fan_out.turn(self.consumer)
        finally:
            with contextlib.suppress(DroprError):
                self.consumer.close()

    def work(self, topic):
        """Turns, until there is nothing left; as the thread of a process it goes on after an error."""
        for _ in range(20):
            try:
                if not self.turn(topic):
                    return
            except DroprError:
                pass
        raise AssertionError("it never comes to an end")

    def lose_leases(self):
        """The store takes it for dead."""
        self.node.runtime.storage.inbox.retire(self.consumer._consumer)

    @contextlib.contextmanager
    def stopped(self, at, act, *, writes=False):
        """In the block ``act`` is done before or after its storage is asked for the n-th time (``at``: 2n, 2n + 1), or,
        with ``writes``, changed. Gives a list that has what was asked then, if it came so far.
        """
        count, found = 0, []

        def wrap(name, call):
            def wrapped(*args, **more):
                nonlocal count
                mine, count = count, count + 1
                if 2 * mine == at:
                    found.append(f"before {name}")
                    act()
                answer = call(*args, **more)
                if 2 * mine + 1 == at:
                    found.append(f"after {name}")
                    act()
                return answer

            return wrapped

        storage = self.node.runtime.storage
        with contextlib.ExitStack() as stack:
            for part, names in CALLS.items():
                thing = getattr(storage, part)
                for name in names:
                    if thing is not None and hasattr(thing, name) and (name in WRITES or not writes):
                        setattr(thing, name, wrap(f"{part}.{name}", getattr(thing, name)))
                        stack.callback(delattr, thing, name)
            yield found


class Published:
    """A topic of its own, with two subscribers here and one elsewhere."""

    def __init__(self, node, name):
        self.node, self.topic, self.count = node, name, 0
        self.channels = [node.subscribe(name, one, at=node.name) for one in ("here", "too")]
        self.there = Subscription(name, "there", PEER)
        Subscriptions(node.runtime).add(self.there)
        self.got = {channel: [] for channel in self.channels}

    def publish(self, *priorities):
        """A message of each priority."""
        for priority in priorities:
            self.node.publish(self.topic, b"%d" % self.count, priority=priority)
            self.count += 1

    def receive(self):
        """Subscribers are quick: what they got is gone from the store."""
        for channel, got in self.got.items():
            got += [received.body for received in self.node.receive(channel, wait=0)]

    def wrong(self):
        """Who did not get each message once, after all."""
        self.receive()
        outbox = self.node.runtime.storage.outbox
        sent = [one.id for one in outbox.all(Selection(channel=self.there.channel))]
        shipped = [bytes(envelope.body_of(outbox.envelope(one))) for one in sent]
        want = [b"%d" % number for number in range(self.count)]
        found = {**self.got, self.there.channel: shipped}
        return {channel: got for channel, got in found.items() if sorted(got) != sorted(want)}

    def end(self):
        """Nobody subscribes any more."""
        subscriptions = Subscriptions(self.node.runtime)
        for one in subscriptions.of(self.topic):
            subscriptions.remove(one)
