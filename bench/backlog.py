"""Fills a node's store with messages that wait, at the speed of the store.

Owns how: what a peer would have pushed, or what this node's programs would have sent. Must not know any figure.
"""

import os

import dropr_core as dropr
from dropr_core.api.sender import Sender
from dropr_core.contracts.storage import Arrival, Job
from dropr_core.model import topics
from dropr_core.model.names import START, Head, IdMaker, MessageId, SourceLane, StoreId

BODY = os.urandom(200)
BATCH = 5000


class Peer:
    """Somebody who pushes into a node's inbox, lane after lane, without a network."""

    def __init__(self, node: dropr.Node, name: str = "shop", body: bytes = BODY) -> None:
        self._node, self._name, self._make = node, name, IdMaker()
        self._store = StoreId(os.urandom(8))
        self._heads: dict[tuple[str, int], Head] = {}
        channel = next(iter(node.config.channels), "orders")
        to = next(iter(node.config.peers))
        composed, _ = Sender(node.runtime).compose(body, {"to": to, "channel": channel})
        self._envelope = bytes(composed.envelope)

    def push(self, count: int, channel: str = "orders", priority: int = 5) -> None:
        """So many messages into a channel, then wake who waits for them. All are equal but for their ids."""
        lane = SourceLane(self._name, self._store, channel, priority)
        for first in range(0, count, BATCH):
            head = self._heads.get((channel, priority), START)
            jobs = [Job(self._make(), self._envelope, head.sequence + place + 1)
                    for place in range(min(BATCH, count - first))]  # fmt: skip
            upto = Head(jobs[-1].sequence, MessageId(jobs[-1].id))
            assert self._node.inbox.accept([Arrival(lane, head, upto, jobs)])[0].taken
            self._heads[channel, priority] = upto
        self._node.runtime.notifier.notify(topics.inbox(channel))


def send_many(node: dropr.Node, count: int, channel: str = "orders", body: bytes = BODY) -> None:
    """So many messages into the outbox."""
    for first in range(0, count, BATCH):
        with node.batch() as batch:
            for _ in range(min(BATCH, count - first)):
                batch.send(body, channel=channel)
