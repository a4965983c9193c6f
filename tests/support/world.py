"""Two nodes and a bad road in one process, without sockets or time: the real code above a fake network.

Owns `World`: a sender's outbox, link and pusher, a receiver's inbox and endpoint, and every request
and answer between them as something that a test delivers, loses, doubles or keeps for later. Stores
can be wiped, rolled back and cloned. Must not know what is tested.
"""

import copy
import logging
import random
import threading
from concurrent.futures import Future
from pathlib import Path

import attrs

from dropr_core.builtin.memory_data import InboxData, OutboxData
from dropr_core.builtin.memory_inbox import MemoryInbox
from dropr_core.builtin.memory_outbox import MemoryOutbox
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage, PeerState
from dropr_core.contracts.transport import Caller, Connection
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.puller import Puller
from dropr_core.delivery.pusher import Pusher
from dropr_core.errors import DroprError, Unanswered, Unreachable
from dropr_core.model import envelope
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import Message
from dropr_core.model.names import Lane, MessageId
from dropr_core.protocol.access import Access
from dropr_core.protocol.endpoint import Endpoint, Limits, Wait
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.system.clock import FakeClock

KEY = b"the key of shop and ware"
CALLER = Caller("test")
LOG = logging.getLogger("dropr.test.world")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False
BACKOFF = Backoff(0.1, 1.0)


def context(clock, **fields):
    """What a storage in memory needs."""
    return Context(node="test", data=Path(), clock=clock, log=LOG, **fields)


@attrs.define(eq=False)
class Letter:
    """One request on its way, then its answer on the way back."""

    frame: bytes
    future: Future
    answer: bytes | Exception | None = None

    @property
    def open(self):
        """Whether somebody still waits for it."""
        return not self.future.done()


class Road(Connection):
    """The network between one asker and one endpoint; nothing moves by itself."""

    def __init__(self, world, target):
        self.world, self.target = world, target
        self.letters: list[Letter] = []
        self.before = None
        """A test's hook: judges frames before the target sees them; may return an exception instead."""

    def ask(self, request, *, idle):
        """See contracts/transport.py."""
        letter = Letter(request, Future())
        self.letters.append(letter)
        return letter.future

    def arrive(self, letter):
        """The target gets the request (again), and its answer sets out."""
        refusal = self.before(letter.frame) if self.before else None
        if refusal is not None:
            letter.answer = refusal
            return
        endpoint = getattr(self.world, self.target)
        try:
            request = endpoint.open(letter.frame, CALLER)
            answer = endpoint.answer(request)
            if isinstance(answer, Wait):
                answer = endpoint.answer(request, first=False, final=True)
        except DroprError as error:
            answer = error
        self.world.look()
        if letter.answer is None:
            letter.answer = answer  # a repeated request is answered too, but nobody reads that

    def come_home(self, letter):
        """The asker gets the answer."""
        self._end(letter, letter.answer)

    def lose(self, letter, *, certain=False):
        """Nothing comes back: the request or its answer is lost."""
        self._end(letter, (Unreachable if certain else Unanswered)("lost on the road"))

    def _end(self, letter, result):
        self.letters.remove(letter)
        if isinstance(result, Exception):
            letter.future.set_exception(result)
        else:
            letter.future.set_result(result)

    def close(self):
        """The asker died: nobody waits any more. What is on its way still arrives if a test says so."""


class Sender:
    """The sending node: outbox, and one pusher."""

    def __init__(self, world, data=None):
        self.world = world
        self.data = data or OutboxData()
        self.outbox = MemoryOutbox(self.data, threading.RLock(), context(world.clock))
        self.posts = []
        self.restart()

    def restart(self):
        """The daemon dies and begins again: session, link state and open requests are gone."""
        self.road = Road(self.world, "endpoint")
        self.posts.clear()
        posts = self.posts
        talk = PeerClient("shop", "ware", [KEY], lambda: self.road, posts.append, 30.0)
        self.pusher = Pusher(
            Link("ware", LinkSettings(BACKOFF, first_count=3, max_count=5), random.Random(1)), talk, self.outbox,
            self.world.clock, node_id=b"n" * 16, on_reset="resend", batch_bytes=1 << 20, notify=lambda _topic: None,
            event=self.world.event, log=LOG,
        )  # fmt: skip

    def send(self, number, channel="a", priority=5, **fields):
        """Append one message; its id says its number."""
        identity = MessageId(number.to_bytes(16, "big"))
        facts = {key: fields[key] for key in ("receipt", "expires_in") if key in fields}
        message = Message(id=identity, sender="shop", channel=channel, priority=priority, **facts)
        self.outbox.append([NewMessage(identity, channel, priority, ("ware",), envelope.encode(message, b"%d" % number),
                                     fields.get("receipt", False), fields.get("expires_in"))])  # fmt: skip
        return identity

    def turn(self):
        """One turn of the daemon's loop."""
        while self.posts:
            self.posts.pop(0)()
        state = self.outbox.peers().get("ware", PeerState())
        return self.pusher.turn(self.outbox.lanes("ware"), state)

    def snapshot(self):
        """A backup of its store."""
        return copy.deepcopy(self.data)


class World:
    """Sender ``shop``, receiver ``ware``, and what entered where."""

    def __init__(self):
        self.clock = FakeClock()
        self.events = []
        self.entered: set[bytes] = set()
        """Ids that ever entered a queue of the receiver."""
        self.sender = Sender(self)
        self.set_inbox(InboxData())

    def event(self, name, details):
        """An observer that remembers."""
        self.events.append((name, dict(details)))

    def named(self, name):
        """Events of one name."""
        return [details for event, details in self.events if event == name]

    def set_inbox(self, data, **limits):
        """The receiver begins again, on this store."""
        self.inbox_data = data
        self.inbox = MemoryInbox(data, threading.RLock(), context(self.clock, **limits))
        self.outbox_there = MemoryOutbox(OutboxData(), threading.RLock(), context(self.clock))
        self.endpoint = Endpoint("ware", b"w" * 16, {"shop": Access((KEY,))}, self.outbox_there, self.inbox,
                                 limits=Limits(batch_count=4), event=self.event)  # fmt: skip

    def look(self):
        """Remember what is in the receiver's queue."""
        self.entered.update(task.job.id for task in self.inbox_data.items.values())

    def queue(self):
        """(number, flagged) of everything that is in the receiver's queue, in order of arrival."""
        return [
            (int.from_bytes(task.job.id, "big"), task.job.possible_duplicate)
            for _, task in sorted(self.inbox_data.items.items())
        ]

    def numbers(self):
        """The numbers alone."""
        return [number for number, _flag in self.queue()]

    def settle_down(self, *senders, rounds=200):
        """A good road from now on: everything moves until nothing is left to do."""
        senders = senders or (self.sender,)
        for _ in range(rounds):
            for sender in senders:
                sender.turn()
                for letter in list(sender.road.letters):
                    sender.road.arrive(letter)
                    sender.road.come_home(letter)
                while sender.posts:
                    sender.posts.pop(0)()
            if not any(sender.outbox.lanes("ware") for sender in senders):
                return
            self.clock.advance(2.0)
        raise AssertionError(f"still waiting: {[sender.outbox.lanes('ware') for sender in senders]}")


def pull_world():
    """The other direction: ``ware`` fetches from ``shop``. Returns world, puller, road and posts."""
    world = World()
    there = MemoryInbox(InboxData(), threading.RLock(), context(world.clock))
    world.office = Endpoint("shop", b"s" * 16, {"ware": Access((KEY,))}, world.sender.outbox, there, event=world.event)
    road, posts = Road(world, "office"), []
    world.look = lambda: None
    return world, make_puller(world, road, posts), road, posts


def make_puller(world, road, posts):
    """A fetching daemon over the world's inbox."""
    talk = PeerClient("ware", "shop", [KEY], lambda: road, posts.append, 30.0)
    return Puller("shop", talk, world.inbox, world.clock, node_id=b"w" * 16, allows=lambda _channel: True,
                  max_body=1 << 20, backoff=BACKOFF, rng=random.Random(1), notify=lambda _topic: None,
                  event=world.event, log=LOG)  # fmt: skip


__all__ = ["KEY", "Lane", "Letter", "Road", "Sender", "World", "context", "make_puller", "pull_world"]
