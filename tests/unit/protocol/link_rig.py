"""A link by hand: lanes and batches for it, and what it wants asked, as asked."""

from dropr_core.contracts.storage import Batch, Entry, LaneStats
from dropr_core.errors import Refused
from dropr_core.model.names import START, Head, Lane, MessageId
from dropr_core.protocol.messages import PushResult, Welcome

BUSY = Refused("busy", "StoreReadOnly", signed=True)
WELCOME = Welcome(1, b"n" * 16, b"s" * 16, b"i" * 8, 4 << 20, 10_000, 1 << 24)


def ident(number):
    return MessageId(number.to_bytes(16, "big"))


def stats(channel="orders", priority=5, depth=10, oldest=1.0):
    return LaneStats(Lane("peer", channel, priority), START, depth, depth, depth * 100, oldest)


def batch(lane, first=1, count=10):
    after = Head(first - 1, ident(first - 1))
    return Batch(lane, after, [Entry(n, ident(n), b"e") for n in range(first, first + count)])


def taken(of):
    return PushResult(True, of.upto)


def ask(link, now, lanes, *, awaiting):
    """What the link wants asked, as asked."""
    orders = link.orders(now, lanes, awaiting=awaiting)
    for order in orders:
        link.begin(order)
    return orders
