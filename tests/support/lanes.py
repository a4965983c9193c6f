"""Two nodes without sockets, threads or real time: every request and answer lies in the hand of a test.

Owns the network, the sending and the receiving node of the tests of the lane protocol. Both run the
product's own pusher, link, conversation, endpoint and puller over storages in memory.
"""

import collections
import copy
import io
import logging
import random
import threading
from concurrent.futures import Future
from pathlib import Path

from dropr_core.builtin.memory_data import InboxData, OutboxData
from dropr_core.builtin.memory_inbox import MemoryInbox
from dropr_core.builtin.memory_outbox import MemoryOutbox
from dropr_core.contracts.storage import Ack, NewMessage, PeerState
from dropr_core.contracts.transport import Caller, Connection
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.puller import Puller
from dropr_core.delivery.pusher import Pusher
from dropr_core.errors import Refused, Unanswered
from dropr_core.model import envelope
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import Message
from dropr_core.model.names import MessageId, lane_priority
from dropr_core.protocol.access import Access
from dropr_core.protocol.conversations import BegunInMemory, NodeSecret
from dropr_core.protocol.endpoint import Endpoint, Wait
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.testing.builders import make_context

SHOP, THERE, KEY = "shop", "there", b"k" * 32
LOG = logging.getLogger("dropr.test.lanes")
"""Its own, for it is kept silent: nobody else's test of what is logged may come to feel it."""
LOG.addHandler(logging.NullHandler())
LOG.propagate = False
PATIENCE = 60.0
"""Seconds for which a held long poll is kept: more than the longest wait of the protocol."""


class Flight:
    """One request on its way, and its answer once there is one."""

    def __init__(self, frame, server, clock):
        self.frame, self.server, self.clock = frame, server, clock
        self.future = Future()
        self.answer = None
        self.held = None
        self.until = 0.0

    @property
    def done(self):
        """Whether the asker has been told something."""
        return self.future.done()

    def arrive(self):
        """The request reaches the server (again: a doubled one). True when there is an answer."""
        server = self.server
        try:
            request = self.held or server.endpoint.open(self.frame, Caller("test"))
            final = self.held is not None and self.clock.now() >= self.until
            word = server.endpoint.answer(request, first=self.held is None, final=final)
        except Refused as refusal:
            self.held, self.answer = None, refusal
            return True
        if isinstance(word, Wait):
            if self.held is None:
                self.until = self.clock.now() + word.seconds
            self.held = request
            return False
        self.held, self.answer = None, word
        return True

    def come_back(self, answer=None):
        """The answer (or ``answer`` in its place) reaches the asker; False if there is none."""
        answer = self.answer if answer is None else answer
        if answer is None or self.done:
            return False
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)
        return True

    def carry(self):
        """There and back."""
        return not self.done and self.arrive() and self.come_back()

    def lose(self, error=None):
        """The asker hears nothing."""
        if not self.done:
            self.future.set_exception(error or Unanswered("time-out"))


class Wires(Connection):
    """A connection whose requests wait for the test to move them."""

    def __init__(self, server, clock):
        self.server, self.clock = server, clock
        self.flights = []

    def ask(self, request, *, idle):
        """Put it into the test's hand."""
        self.flights.append(Flight(request, self.server, self.clock))
        return self.flights[-1].future

    def close(self):
        """Nothing to release."""

    @property
    def open(self):
        """Requests whose asker waits."""
        return [flight for flight in self.flights if not flight.done]


class RecordingInbox(MemoryInbox):
    """Remembers everything that ever entered the queue."""

    def accept(self, arrivals):
        """As the memory does."""
        words = super().accept(arrivals)
        for arrival, word in zip(arrivals, words, strict=True):
            if word.taken:
                self.entered.extend((arrival.source, job) for job in arrival.entries)
        return words


class Node:
    """What sender and receiver have in common: halves, an endpoint, events."""

    def __init__(self, name, other, clock, outbox=None, inbox=None, *, bodies=None, **context):
        self.name, self.clock, self.bodies = name, clock, bodies
        self.secret = self.begun = None
        """What all servers of this node know; None: each knows its own."""
        self.context = make_context(Path(), clock, **context)
        self.events = []
        self.lives = [[]]
        """What entered the queue, for each life of the inbox."""
        self.access = {other: Access((KEY,))}
        self.outbox = MemoryOutbox(outbox or OutboxData(), threading.RLock(), self.context)
        self.begin(inbox or InboxData())

    @property
    def entered(self):
        """(source lane, job) of all lives."""
        return [row for life in self.lives for row in life]

    @property
    def ids(self):
        """Ids in the order in which they entered the queue."""
        return [job.id for _, job in self.entered]

    def begin(self, data):
        """Start on this inbox; also a restart of the server, which forgets its sessions."""
        self.data = data
        self.inbox = RecordingInbox(data, threading.RLock(), self.context)
        self.inbox.entered = self.lives[-1]
        self.consumer = self.inbox.register("test")
        self.endpoint = Endpoint(
            self.name, self.name.encode().ljust(16, b"."), self.access, self.outbox, self.inbox, event=self.event,
            bodies=self.bodies, secret=self.secret, begun=self.begun,
        )  # fmt: skip

    def event(self, name, details):
        """Observers are told."""
        self.events.append((name, dict(details)))

    def told(self, name):
        """How often an event was told."""
        return sum(event == name for event, _ in self.events)

    def restart(self):
        """The server process ends and comes back."""
        self.begin(self.data)

    def several(self):
        """From now on each `restart` is another server of the same node: they share what they know."""
        self.secret, self.begun = NodeSecret.of_this_process(self.clock.now), BegunInMemory()
        self.restart()

    def wipe(self):
        """The store is deleted and made anew."""
        self.lives.append([])
        self.begin(InboxData())

    def restore(self, data):
        """A backup is put in the place of the store."""
        self.lives.append([])
        self.begin(copy.deepcopy(data))

    def consume(self, limit=1000, channels=("orders", "news", "common")):
        """Handle what is ready; the ids."""
        claims = self.inbox.claim(channels, limit, self.consumer)
        self.inbox.settle([Ack(claim) for claim in claims])
        return [claim.id for claim in claims]


class Sender(Node):
    """A node with a pusher to the other one."""

    def __init__(self, clock, server, outbox=None, *, keys=(KEY,), on_reset="resend", seed=1, **context):
        super().__init__(SHOP, THERE, clock, outbox, **context)
        self.server, self.keys, self.on_reset, self.seed = server, keys, on_reset, seed
        self.start()

    def start(self):
        """The daemon starts, with nothing in mind."""
        self.posted = collections.deque()
        self.wires = Wires(self.server, self.clock)
        self.pusher = Pusher(
            Link(THERE, LinkSettings(), random.Random(self.seed)), talk(self, THERE, self.wires), self.outbox,
            self.clock, node_id=b"i" * 16, on_reset=self.on_reset, batch_bytes=1 << 20, notify=lambda _topic: None,
            event=self.event, log=LOG, bodies=self.bodies,
        )  # fmt: skip

    def send(self, number, channel="orders", priority=5, *, peer=THERE, receipt=False, expires_in=None,
             body=None):  # fmt: skip
        """Append the message with this number; its id."""
        identity = ident(number)
        message = Message(id=identity, sender=self.name, channel=channel, priority=priority, receipt=receipt)
        sealed = envelope.encode(message, b"body %d" % number if body is None else body)
        self.outbox.append([NewMessage(id=identity, channel=channel, priority=priority, peers=(peer,), envelope=sealed,
                                     receipt=receipt, expires_in=expires_in)])  # fmt: skip
        return identity

    def send_large(self, number, channel, body):
        """Append a message with this number whose body is a file."""
        identity = ident(number)
        written = self.bodies.write(identity, io.BytesIO(body))
        message = Message(id=identity, sender=self.name, channel=channel, receipt=True)
        self.outbox.append([NewMessage(id=identity, channel=channel, priority=lane_priority(5, large=True),
                                       peers=(THERE,), envelope=envelope.encode(message, written.reference),
                                       receipt=True)])  # fmt: skip
        written.release()
        return written.path

    def turn(self):
        """One turn of the daemon's loop: answers, then new requests. The requests that wait."""
        drain(self)
        self.wake = self.pusher.turn(self.outbox.lanes(THERE), self.outbox.peers().get(THERE, PeerState()))
        drain(self)
        return self.wires.open

    def ship(self):
        """Up to the push: greeted and probed, the one request under way that is a push."""
        for _ in range(10):
            for flight in self.turn():
                if verb(flight) == "push":
                    return flight
                flight.carry()
        raise AssertionError("no push came")

    def flow(self, turns=30, step=0.0):
        """A network without faults; ``step`` seconds pass after each turn."""
        for _ in range(turns):
            for flight in self.turn():
                flight.carry()
            drain(self)
            self.clock.advance(step)

    def state(self, number):
        """State of a message's delivery; empty when forgotten."""
        return next((str(d.state) for d in self.outbox.status(ident(number))), "")

    def reason(self, number):
        """Why a message's delivery is where it is."""
        return next((d.reason for d in self.outbox.status(ident(number))), "")

    def image(self):
        """A snapshot of the outbox, as a backup or a copied machine has it."""
        return copy.deepcopy(self.outbox._data)


class Fetcher(Node):
    """A node that fetches from a sender which cannot reach it."""

    def __init__(self, clock, sender):
        super().__init__(THERE, SHOP, clock)
        self.posted = collections.deque()
        self.wires = Wires(sender, clock)
        self.puller = Puller(
            SHOP, talk(self, SHOP, self.wires), self.inbox, clock, node_id=b"f" * 16, allows=lambda _channel: True,
            max_body=1 << 20, backoff=Backoff(), rng=random.Random(1), notify=lambda _topic: None, event=self.event,
            log=LOG,
        )  # fmt: skip

    def turn(self):
        """One turn of the daemon's loop."""
        drain(self)
        self.wake = self.puller.turn()
        drain(self)
        return self.wires.open

    def flow(self, turns=20):
        """A network without faults."""
        for _ in range(turns):
            for flight in self.turn():
                flight.carry()
            drain(self)


def live(node, seconds, *, meanwhile=lambda: None):
    """The loop of a daemon for some time on a network without faults; how often it turned."""
    ends, turns = node.clock.now() + seconds, 0
    while True:
        moved = True
        while moved:
            open_ = node.turn()
            turns += 1
            assert turns < 50 + 50 * seconds, "it spins"
            moved = sum(flight.carry() for flight in open_)
            meanwhile()
        now = node.clock.now()
        wakes = [wake for wake in (node.wake, *(flight.until for flight in open_ if flight.held)) if wake is not None]
        at = min([*wakes, ends])
        if at >= ends:
            node.clock.advance(max(0.0, ends - now))
            return turns
        node.clock.advance(max(0.001, at - now))


def talk(node, peer, wires):
    """A conversation whose answers wait for the node's next turn."""
    keys = getattr(node, "keys", (KEY,))
    return PeerClient(node.name, peer, keys, lambda: wires, node.posted.append, 30.0)


def drain(node):
    """Handle the answers that came."""
    while node.posted:
        node.posted.popleft()()


def verb(flight):
    """What a request asks."""
    from dropr_core.protocol.frames import read_head

    return read_head(flight.frame, 1 << 30).header.verb


def ident(number):
    """The id of the message with this number."""
    return MessageId(number.to_bytes(16, "big"))
