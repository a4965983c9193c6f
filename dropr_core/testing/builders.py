"""Small makers for tests of storages: contexts, messages, arrivals.

Owns the shortest way to write such a test. Must not know any particular storage.
"""

import itertools
import logging
import os
import uuid
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Accepted, Arrival, Batch, Claim, Inbox, Job, NewMessage, Outbox, Storage
from dropr_core.model.names import START, Head, IdMaker, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import Clock

PEER, CHANNEL, SENDER, PRIORITY = "there", "orders", "shop", 5
LANE = Lane(PEER, CHANNEL, PRIORITY)
STORE = StoreId(b"store--1")


def make_context(directory: Path, clock: Clock, **fields: Any) -> Context:
    """A context for a storage under test; ``min_free`` is 0, so that a small disk fails no test."""
    fields.setdefault("min_free", 0)
    return Context(node=SENDER, data=directory, clock=clock, log=logging.getLogger("dropr.test"), **fields)


_make, _made = IdMaker(), itertools.count(1)


def new_id() -> MessageId:
    """A fresh message id: most of them rise, as those of messages do, and some are of somebody else's making."""
    return _make() if next(_made) % 4 else MessageId(uuid.UUID(bytes=os.urandom(16), version=4).bytes)


def outgoing(envelope: bytes = b"envelope", **fields: Any) -> NewMessage:
    """A message for the outbox; everything that is not given has a default."""
    values: dict[str, Any] = {"id": new_id(), "channel": CHANNEL, "priority": PRIORITY, "peers": (PEER,)}
    return NewMessage(envelope=envelope, **{**values, **fields})


def send(outbox: Outbox, count: int = 1, **fields: Any) -> list[MessageId]:
    """Append ``count`` messages in one call; their ids."""
    messages = [outgoing(b"envelope %d" % number, **fields) for number in range(count)]
    outbox.append(messages)
    return [message.id for message in messages]


def taken(
    outbox: Outbox, lane: Lane = LANE, count: int = 1000, size: int = 1 << 30, *, mark_in_flight: bool = True
) -> Batch:
    """`Outbox.take`, where something must be there."""
    batch = outbox.take(lane, count, size, mark_in_flight=mark_in_flight)
    assert batch is not None, f"nothing to take from {lane}"
    return batch


def deliver(outbox: Outbox, lane: Lane = LANE, count: int = 1000) -> Batch:
    """Take and settle, as if the peer had committed it."""
    batch = taken(outbox, lane, count)
    outbox.settle(lane, batch.upto)
    return batch


def state_of(outbox: Outbox, message_id: MessageId, peer: str = PEER) -> str:
    """State of one delivery; empty if it is not known."""
    return next((str(d.state) for d in outbox.status(message_id) if d.peer == peer), "")


def job(envelope: bytes = b"envelope", **fields: Any) -> Job:
    """A message for the inbox."""
    return Job(fields.pop("id", None) or new_id(), envelope, **fields)


class Source:
    """The sending end of one lane, as an inbox sees it."""

    def __init__(self, inbox: Inbox, channel: str = CHANNEL, priority: int = PRIORITY, sender: str = SENDER) -> None:
        self.inbox = inbox
        self.lane = SourceLane(sender, STORE, channel, priority)
        self.head = START
        self._numbers = itertools.count(1)

    def arrival(self, *jobs: Job, after: Head | None = None) -> Arrival:
        """The next part of this lane (not yet sent)."""
        numbered = [entry._replace(sequence=next(self._numbers)) for entry in jobs]
        upto = Head(numbered[-1].sequence, numbered[-1].id)
        return Arrival(self.lane, self.head if after is None else after, upto, numbered)

    def push(self, *jobs: Job) -> Accepted:
        """Send jobs that follow the head; they must be taken."""
        arrival = self.arrival(*jobs)
        word = self.inbox.accept([arrival])[0]
        assert word == Accepted(arrival.upto, taken=True)
        self.head = word.head
        return word

    def fill(self, count: int = 1, **fields: Any) -> list[MessageId]:
        """Send ``count`` plain messages; their ids."""
        jobs = [job(b"envelope %d" % number, **fields) for number in range(count)]
        self.push(*jobs)
        return [entry.id for entry in jobs]


class Worker:
    """A consumer of one inbox."""

    def __init__(self, inbox: Inbox, *channels: str) -> None:
        self.inbox, self.channels = inbox, channels or (CHANNEL,)
        self.name = inbox.register("test")

    def claim(self, limit: int = 100) -> list[Claim]:
        """Lease what is ready."""
        return self.inbox.claim(self.channels, limit, self.name)

    def one(self) -> Claim:
        """Lease the one next message, which must be there."""
        claims = self.claim(1)
        assert len(claims) == 1, "nothing to claim"
        return claims[0]


def bodies(storage: Storage) -> tuple[int, int]:
    """How many deliveries and jobs a storage lists, by paging through everything."""
    from dropr_core.contracts.storage import Selection

    sent, came = 0, 0
    cursor, number = (0, 0), 0
    while page := storage.outbox.scan(Selection(), cursor, 7):
        sent, cursor = sent + len(page), page[-1][0]
    while rows := storage.inbox.scan(Selection(), number, 7):
        came, number = came + len(rows), rows[-1].number
    return sent, came


__all__ = [
    "CHANNEL", "LANE", "PEER", "PRIORITY", "SENDER", "STORE", "Source", "Worker", "bodies", "deliver", "job",
    "make_context", "new_id", "outgoing", "send", "state_of", "taken",
]  # fmt: skip
