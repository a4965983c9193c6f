"""A table whose rows go to peers with limits of their own, and what of them is where.

Owns the words of tests about full queues. Must not know what is tested.
"""

from support.one_node import KEY
from support.transactions import Shop

from dropr_core.model import envelope


def shop_of(directory, url, peer_limits=None, channels=None, **fields):
    """A shop whose peers a, b and c have limits of their own."""
    of = {"berlin": {}, "a": {}, "b": {}, "c": {}, **(peer_limits or {})}
    peers = {name: {"url": "http://127.0.0.1:9", "key": KEY, **limit} for name, limit in of.items()}
    groups = {"all": ["a", "b", "c"]}
    return Shop(directory, url, peers=peers, groups=groups, channels=channels or {}, **fields)


def put(shop, to, *bodies, channel="jobs"):
    for body in bodies:
        shop.execute("INSERT INTO dropr_outbox (channel, body, recipients) VALUES (?, ?, ?)", channel, b"%d" % body, to)


def queued(shop, peer):
    """What waits in the store for a peer, in the order of its lanes."""
    lanes = [stats.lane for stats in shop.node.outbox.lanes(peer)]
    batches = [shop.node.outbox.take(lane, 10_000, 1 << 30, mark_in_flight=False) for lane in lanes]
    return [int(envelope.body_of(entry.envelope)) for batch in batches for entry in batch.entries]


def deliver(shop, peer, most=10_000):
    """A peer takes some of what waits for it; what it was."""
    found = []
    for stats in shop.node.outbox.lanes(peer):
        batch = shop.node.outbox.take(stats.lane, most, 1 << 30)
        shop.node.outbox.settle(stats.lane, batch.upto)
        found += [(stats.lane.channel, int(envelope.body_of(entry.envelope))) for entry in batch.entries]
    return found


def relay(shop):
    """Everything that can be done now."""
    for _ in range(10_000):
        if not shop.relay.step(shop.link):
            return
    raise AssertionError("it never ends")
