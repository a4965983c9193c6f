"""The everyday operations, each ready to be done again and again on one node.

Owns `OPERATIONS`: name → how many messages one doing of it is, and how it is made ready and done. Must not know what is
counted. Run as a program it does each of them between two marks, for somebody who watches its system calls.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api import pace
from dropr_core.api.node import Node
from dropr_core.api.sender import Sender
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Arrival, Job
from dropr_core.model.names import START, Head, IdMaker, Lane, MessageId, SourceLane, StoreId
from dropr_core.processes.daemon import Daemon
from dropr_core.processes.mainloop import MainLoop

BODY = bytes(200)
LANE = Lane("ware", "orders", 5)
SOURCE = SourceLane("ware", StoreId(b"budgets-"), "orders", 5)
WOKEN = ("outbox", "control", "schedules")
"""Topics, of which one is notified."""
NEVER = "1h"
"""The flush interval: how often a flusher comes by would depend on the time that the machine takes."""


def open_node(directory: Path, storage: str) -> Node:
    """A node with a peer that nobody calls, and time enough for every acknowledgement to wait for its flush."""
    return Node.open(from_mapping({
        "node": "shop", "data": str(directory / "data"), "storage": {"use": storage, "flush": NEVER},
        "limits": {"min_free": 0}, "peers": {"ware": {"mode": "pull", "key": "k" * 40}},
        "channels": {"orders": {"to": "ware"}, "own": {}},
    }, directory))  # fmt: skip


class Bench:
    """What the operations work on."""

    def __init__(self, node: Node) -> None:
        self.node = node
        composed, _ = Sender(node.runtime).compose(BODY, {"to": "ware", "channel": "orders"})
        self._envelope, self._make, self._head = bytes(composed.envelope), IdMaker(), START
        self._arrival: Arrival | None = None
        self._loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
        self._daemon = Daemon(node.runtime, self._loop)
        # How many a consumer holds depends on the time that they take. Here they take none, on every machine.
        self._worth, pace.WORTH = pace.WORTH, 1e9

    def close(self) -> None:
        """Let go of everything."""
        pace.WORTH = self._worth
        self._daemon.close()
        self._loop.close()
        self.node.close()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def nothing(self, count: int) -> None:
        """No preparation."""

    def send(self, count: int) -> None:
        """One by one."""
        for _ in range(count):
            self.node.send(BODY, channel="orders")

    def put(self, count: int) -> None:
        """One by one, for this node itself."""
        for _ in range(count):
            self.node.put(BODY, channel="own")

    def send_batch(self, count: int) -> None:
        """In one batch."""
        with self.node.batch() as batch:
            for _ in range(count):
                batch.send(BODY, channel="orders")

    def ship(self, count: int) -> None:
        """What the daemon does with its outbox for one push."""
        batch = self.node.outbox.take(LANE, count, 1 << 24)
        assert batch is not None
        self.node.outbox.settle(LANE, batch.upto)

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    def arrive(self, count: int) -> None:
        """A push, unpacked."""
        jobs = [Job(self._make(), self._envelope, self._head.sequence + place + 1) for place in range(count)]
        upto = Head(jobs[-1].sequence, MessageId(jobs[-1].id))
        self._arrival, self._head = Arrival(SOURCE, self._head, upto, jobs), upto

    def accept(self, _count: int) -> None:
        """It is stored."""
        assert self._arrival is not None
        assert self.node.inbox.accept([self._arrival])[0].taken

    def fill(self, count: int) -> None:
        """Messages wait."""
        self.arrive(count)
        self.accept(count)

    def receive(self, count: int) -> None:
        """One by one, each acknowledged by the end of the loop's body."""
        assert sum(1 for _ in self.node.receive("orders", limit=count, wait=0)) == count

    def receive_batch(self, count: int) -> None:
        """In one batch."""
        assert (
            sum(len(batch) for batch in self.node.receive_batches("orders", size=count, limit=count, wait=0)) == count
        )

    # ── one by one, through an idle system ───────────────────────────────────────────────────────

    def wake(self, count: int) -> None:
        """A listener that is about to sleep is woken, as a daemon or a consumer is."""
        notifier, long_ago = self.node.runtime.notifier, time.time() - 60
        with notifier.subscribe(*WOKEN) as subscription:
            for topic in notifier.directory.iterdir():
                os.utime(topic, (long_ago, long_ago))  # nobody has come or gone of late
            for _ in range(count):
                subscription.prepare()
                notifier.notify(WOKEN[0])
                assert subscription.wait(0)

    def look(self, count: int) -> None:
        """What a daemon asks its store before it takes something."""
        for _ in range(count):
            assert self.node.outbox.lanes() is not None
            assert self.node.outbox.peers() is not None
            assert self.node.outbox.store_id

    def accept_each(self, count: int) -> None:
        """Pushes of one message."""
        for _ in range(count):
            self.arrive(1)
            self.accept(1)

    def claim_each(self, count: int) -> None:
        """One message for each claim; all of them are acknowledged together."""
        inbox = self.node.inbox
        name = inbox.register("")
        claims = [inbox.claim(["orders"], 1, name)[0] for _ in range(count)]
        assert all(inbox.acknowledge(claims))
        inbox.retire(name)

    # ── resting ──────────────────────────────────────────────────────────────────────────────────

    def settle_down(self, _count: int) -> None:
        """Turns of the daemon until nothing is due soon."""
        for _ in range(100):
            if (rest := self.rest()) > 1.0:
                return
            time.sleep(max(0.0, rest))
        raise RuntimeError("the daemon finds something to do again and again")

    def idle(self, count: int) -> None:
        """Turns of a daemon that finds nothing."""
        for _ in range(count):
            self._daemon.turn()

    def rest(self) -> float:
        """Seconds until the idle daemon's next turn."""
        return self._daemon.turn() - self.node.runtime.clock.now()


@attrs.frozen
class Operation:
    """One of them."""

    count: int
    """Messages (turns, for the idle daemon) of one doing."""
    ready: Callable[[Bench, int], None]
    act: Callable[[Bench, int], None]


OPERATIONS = {
    "send": Operation(100, Bench.nothing, Bench.send),
    "put": Operation(100, Bench.nothing, Bench.put),
    "send batch": Operation(1000, Bench.nothing, Bench.send_batch),
    "ship": Operation(1000, Bench.send_batch, Bench.ship),
    "accept": Operation(1000, Bench.arrive, Bench.accept),
    "receive": Operation(100, Bench.fill, Bench.receive),
    "receive batch": Operation(1000, Bench.fill, Bench.receive_batch),
    "wake": Operation(100, Bench.nothing, Bench.wake),
    "look": Operation(100, Bench.nothing, Bench.look),
    "accept each": Operation(100, Bench.nothing, Bench.accept_each),
    "claim each": Operation(100, Bench.nothing, Bench.claim_each),
    "idle": Operation(10, Bench.settle_down, Bench.idle),
}


def mark(word: str) -> None:
    """A system call that means nothing but can be seen."""
    Path(f"/mark/{word}").exists()


def main(directory: Path, storage: str) -> None:
    """Each operation once to get warm, and once more between two marks."""
    bench = Bench(open_node(directory, storage))
    for name, operation in OPERATIONS.items():
        for round_ in range(2):
            operation.ready(bench, operation.count)
            if round_:
                mark(f"begin/{name}")
            operation.act(bench, operation.count)
            mark(f"end/{name}")
    bench.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
