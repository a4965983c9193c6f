"""A store that fails while messages are carried: nothing is forgotten, nothing spins, and it heals by itself.

Both ends are the product's own code over a network without faults; time is the test's. Each call that the delivery
makes of a storage fails in each way that a disk has, and then works again.
"""

import logging

import msgspec
import pytest
from support.lanes import LOG, SHOP, THERE, Fetcher, Node, Sender, ident, live

from dropr_core.errors import QueueFull, StoreReadOnly, WriteFailed
from dropr_core.model.names import Lane
from dropr_core.system.clock import FakeClock

KINDS = {
    "ENOSPC": lambda: QueueFull("outbox: No space left on device"),
    "EROFS": lambda: StoreReadOnly("outbox: Read-only file system"),
    "EIO": lambda: WriteFailed("outbox: Input/output error"),
    "EMFILE": lambda: OSError(24, "Too many open files", "outbox"),
}
PUSHING = ["take", "settle", "clear_in_flight", "receipts", "scan", "locate", "rewind", "store_id"]
FETCHING = ["heads", "accept", "outcomes"]


class Faulty:
    """A half of a store whose calls fail as a test says, and are counted."""

    def __init__(self, half):
        self._half, self.failing, self.tries = half, {}, {}

    def __getattr__(self, name):
        if name.startswith("_"):
            return getattr(self._half, name)
        if name in self.failing:
            self.tries[name] = self.tries.get(name, 0) + 1
            kind = self.failing[name]
            if name == "store_id":
                raise kind()

            def fail(*_args, **_more):
                raise kind()

            return fail
        return getattr(self._half, name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return Node(THERE, SHOP, clock)


@pytest.fixture
def sender(clock, server):
    made = Sender(clock, server)
    made.outbox = Faulty(made.outbox)
    made.start()
    return made


@pytest.fixture
def said():
    """What the log says."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append((record.levelname, record.getMessage()))

    handler = Keep()
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield lines
    LOG.removeHandler(handler)


def scene(sender, server):
    """What needs the call that a test lets fail: new messages, receipts, a peer that lost what it had."""
    for number in range(1, 9):
        sender.send(number, "orders" if number % 2 else "news", receipt=True)
    live(sender, 1.0, meanwhile=server.consume)
    assert {sender.state(number) for number in range(1, 9)} == {"processed"}
    sender.send(9, "orders", receipt=True)
    live(sender, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", PUSHING)
def test_each_call_of_an_outbox_that_failed_and_works_again_lets_everything_flow(sender, server, said, call, kind):
    """While it fails it is tried once a second at most; within two seconds after it works, everything has arrived."""
    scene(sender, server)
    sender.outbox.failing = {call: KINDS[kind]}
    server.wipe()  # it must be compared, rewound and sent again
    for number in range(10, 30):
        sender.send(number, f"lane{number % 5}" if number < 20 else "orders", receipt=True)

    def consume():
        server.consume(channels=["orders", "news", *(f"lane{n}" for n in range(5))])

    live(sender, 60.0, meanwhile=consume)
    assert sender.outbox.tries.get(call, 0) <= 60 + 10
    troubles = [line for line in said if "the store failed" in line[1]]
    assert len(troubles) <= 1, said
    sender.outbox.failing = {}
    live(sender, 2.0, meanwhile=consume)
    live(sender, 0.0, meanwhile=consume)
    assert [sender.state(number) for number in range(9, 30)] == ["processed"] * 21
    assert sender.outbox.lanes() == []
    assert len([line for line in said if line[1] == "the store works again"]) == len(troubles)


def test_a_lane_that_cannot_be_read_keeps_no_other_lane_waiting(sender, server, said):
    """One read fails for as long as it likes: every other lane moves at once, and this one when it can be read."""
    half, bad = sender.outbox, Lane(THERE, "broken", 0)
    take = half.take

    def fail(lane, *args, **more):
        if lane == bad and fail.active:
            raise WriteFailed("segment 7: Input/output error")
        return take(lane, *args, **more)

    fail.active = True
    half.take = fail
    for number in range(1, 50):
        sender.send(number, f"lane{number % 7}")
    sender.send(50, "broken", 0)
    live(sender, 1.0)
    assert len(server.ids) == 49
    live(sender, 30.0)
    for number in range(60, 70):
        sender.send(number, "lane1")
    live(sender, 0.5)
    assert len(server.ids) == 59
    fail.active = False
    live(sender, 2.0)
    assert sender.outbox.lanes() == []
    assert [text for _, text in said if "store" in text] == [
        "the store failed, it is tried again every 1.8 s or less: segment 7: Input/output error",
        "the store works again",
    ]


def test_a_full_disk_at_the_sender_with_receipts_waiting_does_not_spin(sender, server, said):
    """The peer is asked for receipts a few times a minute, and not as fast as it answers."""
    for number in range(1, 20):
        sender.send(number, receipt=True)
    live(sender, 1.0)
    server.consume()
    sender.outbox.failing = {"receipts": KINDS["ENOSPC"]}
    asked = len(sender.wires.flights)
    turns = live(sender, 60.0)
    assert len(sender.wires.flights) - asked <= 61
    assert turns <= 200
    assert sender.outbox.tries["receipts"] <= 61
    assert len([line for line in said if "store" in line[1]]) == 1
    sender.outbox.failing = {}
    live(sender, 2.0)
    assert sender.state(1) == "processed"


def test_a_page_of_receipts_that_moves_nothing_is_asked_for_gently(sender, server):
    """A peer that answers with the same page again and again, at once: it is asked once a second."""
    sender.send(1, receipt=True)
    live(sender, 1.0)
    server.consume()
    page = server.endpoint._page

    def stuck(*args):
        found = page(*args)
        return msgspec.structs.replace(found, log=b"", upto=0)

    server.endpoint._page = stuck
    asked = len(sender.wires.flights)
    live(sender, 30.0)
    assert len(sender.wires.flights) - asked <= 31
    server.endpoint._page = page
    live(sender, 2.0)
    assert sender.state(1) == "processed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", FETCHING)
def test_each_call_of_an_inbox_that_failed_and_works_again_lets_everything_flow(clock, said, call, kind):
    """A node that fetches: the failing call rests by itself, and its peer is not held to be down for it."""
    sender = Sender(clock, None)
    node = Fetcher(clock, sender)
    inbox = node.inbox
    node.inbox = node.puller._inbox = Faulty(inbox)
    sender.send(1, receipt=True)
    live(node, 1.0)
    node.inbox.failing = {call: KINDS[kind]}
    for number in range(2, 8):
        sender.send(number, receipt=True)
    node.consume(1)
    live(node, 60.0)
    assert node.puller.down_reason is None
    assert node.inbox.tries[call] <= 60 + 10
    node.inbox.failing = {}
    live(node, 2.0, meanwhile=node.consume)
    live(node, 0.0, meanwhile=node.consume)
    assert node.ids == [ident(number) for number in range(1, 8)]
    assert [sender.state(number) for number in range(1, 8)] == ["processed"] * 7
    assert len([line for line in said if "the store failed" in line[1]]) <= 1


@pytest.mark.parametrize("kind", ["EROFS", "EIO"])
@pytest.mark.parametrize("call", ["accept", "heads", "outcomes"])
def test_each_call_of_the_peers_inbox_that_failed_and_works_again_lets_everything_flow(sender, server, call, kind):
    """The peer answers that its store is in trouble: it is asked at most once a second, and two seconds after it works
    everything has arrived and every receipt is home."""
    sender.send(1, receipt=True)
    live(sender, 1.0)
    faulty = Faulty(server.inbox)
    server.endpoint._inbox = faulty
    faulty.failing = {call: KINDS[kind]}
    for number in range(2, 20):
        sender.send(number, f"lane{number % 3}", receipt=True)

    def consume():
        server.consume(channels=["orders", *(f"lane{n}" for n in range(3))])

    asked = len(sender.wires.flights)
    live(sender, 60.0, meanwhile=consume)
    assert len(sender.wires.flights) - asked <= 150
    faulty.failing = {}
    live(sender, 2.01, meanwhile=consume)
    live(sender, 0.0, meanwhile=consume)
    assert [sender.state(number) for number in range(1, 20)] == ["processed"] * 19
