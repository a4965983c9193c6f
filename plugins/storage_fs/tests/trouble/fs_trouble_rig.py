"""Numbered messages of one lane each way, and which of them a store shows."""

from dropr_core.contracts.storage import Arrival, Job, NewMessage, Selection
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId

LANE = Lane("there", "orders", 5)
SOURCE = SourceLane("shop", StoreId(b"store--1"), "orders", 5)


def identity(number):
    return MessageId(number.to_bytes(16, "big"))


def send(storage, *numbers, peers=("there",), size=40):
    return storage.outbox.append([NewMessage(identity(n), "orders", 5, peers, b"%03d" % n * size) for n in numbers])


def queued(storage, lane=LANE):
    """Numbers that are queued."""
    page = storage.outbox.scan(Selection(peer=lane.peer), limit=10_000)
    return [int.from_bytes(delivery.id, "big") for _, delivery in page if delivery.state == "queued"]


def push(storage, first, last):
    after = START if first == 1 else Head(first - 1, identity(first - 1))
    jobs = [Job(identity(n), b"%03d" % n * 40, n) for n in range(first, last + 1)]
    return storage.inbox.accept([Arrival(SOURCE, after, Head(last, identity(last)), jobs)])[0]


def came(storage):
    return [int.from_bytes(info.id, "big") for info in storage.inbox.scan(Selection(), 0, 10_000)]
