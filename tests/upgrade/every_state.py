"""A store with something in every state that there is, and a picture of a store: run by either version.

    python every_state.py make NODE.yaml      # makes it, prints its picture, and dies with leases and a staged log
    python every_state.py look NODE.yaml      # prints the picture

Uses only what the last release has, too. Must not know which version it runs on.
"""

import io
import json
import os
import sys
from pathlib import Path

import dropr_core as dropr
from dropr_core.contracts.storage import Arrival, Job, Rejection, Selection
from dropr_core.model import envelope
from dropr_core.model.message import Message, Outcome, State
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId

LEAF = 256 * 1024
HALF, BODY = MessageId(b"half-arrived----"), bytes(range(256)) * 4000
"""A message whose body is arriving."""


def make(file):
    """Everything; ends this process by the way."""
    node = dropr.open(file)
    fill_outbox(node)
    fill_inbox(node)
    node.pause("closed", reason="moving house")
    node.subscribe("prices", "audit")
    print(json.dumps(picture(node)), flush=True)
    node.send(b"staged", channel="quick")
    # Leases in the hands of a consumer that dies, a staged log that nobody takes in, nothing closed.
    os._exit(0)


def fill_outbox(node):
    """Queued, under way, awaiting, processed and kept, failed, dead, cancelled, expired, held, multicast, large …"""
    outbox = node.outbox
    for channel in ("queued", "underway", "awaiting", "ended", "refused"):
        for number in range(6):
            node.send(b"%s %d" % (channel.encode(), number), to="ware", channel=channel, receipt=channel != "queued")
    node.send(b"once", to="ware", channel="own", dedup_key="order 7")
    node.send(b"to both", to=["ware", "hut"], channel="news")
    node.send(b"late", to="ware", channel="later", delay=3600, expires_in=7200)
    node.send(bytes(300_000), to="ware", channel="large")
    cancelled = node.send(b"not this", to="ware", channel="cancelled")
    cancelled.cancel()
    node.send(b"closed road", to="hut", channel="held")
    outbox.hold("hut", "on a ship")
    outbox.take(Lane("ware", "underway", 5), 3, 1 << 20)
    for channel, count in (("awaiting", 4), ("ended", 6)):
        batch = outbox.take(Lane("ware", channel, 5), count, 1 << 20)
        outbox.settle(batch.lane, batch.upto)
    batch = outbox.take(Lane("ware", "refused", 5), 2, 1 << 20)
    outbox.settle(batch.lane, batch.upto, [Rejection(batch.entries[0].sequence, "not_allowed", "no")])
    batch = outbox.take(Lane("ware", "refused", 5), 1, 1 << 20)
    outbox.dead_letter(batch.lane, batch.entries[0].sequence, "given up")
    ended = [one for one in outbox.all(Selection()) if one.channel == "ended"]
    outcomes = [Outcome(number, one.id, (State.PROCESSED, State.FAILED)[number % 2], "said so", b"result")
                for number, one in enumerate(ended[:4], 1)]  # fmt: skip
    outbox.receipts("ware", StoreId(b"thelog-1"), outcomes, 4)


def arrive(node, channel, count, priority=5, **fields):
    """So many messages of the peer on a channel."""
    jobs = []
    for number in range(1, count + 1):
        identity = MessageId((channel.encode() + bytes(14))[:14] + number.to_bytes(2, "big"))
        message = Message(id=identity, sender="ware", channel=channel, priority=priority, receipt=True)
        sealed = envelope.encode(message, b"%s %d" % (channel.encode(), number))
        jobs.append(Job(identity, sealed, number, receipt=True, **fields))
    source = SourceLane("ware", StoreId(b"store--1"), channel, priority)
    (word,) = node.inbox.accept([Arrival(source, START, Head(count, jobs[-1].id), jobs)])
    assert word.taken


def fill_inbox(node):
    """Ready, delayed, blocked, leased, released, buried, done and kept, expired, with outcomes that wait."""
    arrive(node, "ready", 5)
    arrive(node, "urgent", 2, priority=0)
    arrive(node, "delayed", 2, due_in=3600.0)
    arrive(node, "keyed", 3, key="k")
    arrive(node, "leased", 3)
    arrive(node, "buried", 2)
    arrive(node, "done", 3)
    arrive(node, "again", 2)
    arrive(node, "expiring", 2, expires_in=7200.0)
    for message in node.receive("buried", limit=2, timeout=30):
        message.bury("cannot be done")
    for message in node.receive("done", limit=2, timeout=30):
        message.ack(b"result")
    for message in node.receive("again", limit=1, timeout=30):
        message.release(3600, "no stock")
    consumer = node.inbox.register("dies")
    assert len(node.inbox.claim(["leased", "keyed"], 3, consumer)) == 3
    # A body of which the first piece has come. Where this stands is the last release's business.
    from dropr_core.bodies.partial_body import PartialBodies

    written = node.runtime.bodies.write(HALF, io.BytesIO(BODY))
    arriving = PartialBodies(node.runtime.bodies)
    assert arriving.of("ware", HALF, written.reference).write(0, BODY[:LEAF]) == LEAF
    arriving.close()
    written.discard()


def picture(node):
    """What a store holds, as far as anybody can see, but for times."""
    outbox, inbox = node.outbox, node.inbox
    deliveries = sorted(
        (one.id.hex(), one.peer, one.channel, one.priority, str(one.state), one.sequence, one.reason,
         (one.result or b"").hex())
        for one in outbox.all(Selection())
    )  # fmt: skip
    lanes = sorted(
        (str(stats.lane), stats.last, stats.depth, stats.head.sequence, stats.bytes) for stats in outbox.lanes()
    )
    peers = sorted(
        (name, state.held, state.reason, state.awaiting, state.cursor) for name, state in outbox.peers().items()
    )
    jobs = sorted(
        (one.id.hex(), one.sender, one.channel, one.priority, str(one.state), one.attempts, one.reason)
        for one in inbox.all(Selection())
    )  # fmt: skip
    heads = sorted((str(lane), head.sequence, head.id.hex()) for lane, head in inbox.heads("ware").items())
    files = sorted(
        str(path.relative_to(node.config.data))
        for path in (Path(node.config.data) / "bodies").rglob("*")
        if path.is_file()
    )
    whole = {
        "stores": [outbox.store_id.hex(), inbox.store_id.hex()], "deliveries": deliveries, "lanes": lanes,
        "peers": peers, "jobs": jobs, "heads": heads, "bodies": files,
    }  # fmt: skip
    return json.loads(json.dumps(whole))


def outcomes(node):
    """What the peer has not fetched of its receipts; nobody may ask who only looks."""
    _, rows = node.inbox.outcomes("ware", node.inbox.store_id, 0, 100)
    return [(row.number, row.id.hex(), str(row.state), row.reason, (row.result or b"").hex()) for row in rows]


def look(file):
    """The picture of what is there, by a process that changes nothing."""
    from dropr_core.api.node import Node

    with Node.open(file, read_only=True) as node:
        print(json.dumps(picture(node)))


if __name__ == "__main__":
    {"make": make, "look": look}[sys.argv[1]](sys.argv[2])
