"""What a peer says about many lanes costs as much for each of them, however many they are."""

import pytest
from support.lanes import Fetcher, Node, Sender, ident

from dropr_core.builtin.memory_outbox import MemoryOutbox
from dropr_core.system.clock import FakeClock

FEW, MANY = 3, 30


def counting(counted, name):
    """The storage's method, counted."""
    real = getattr(MemoryOutbox, name)

    def count(self, *args, **fields):
        counted[name] += 1
        return real(self, *args, **fields)

    return count


@pytest.fixture
def looks(monkeypatch):
    """Counts looks at all lanes and at all deliveries, and new numberings of everything."""
    counted = dict.fromkeys(("lanes", "scan", "renumber"), 0)
    for name in counted:
        monkeypatch.setattr(MemoryOutbox, name, counting(counted, name))
    return counted


def sender_of(count, receipt=False):
    clock = FakeClock()
    sender = Sender(clock, Node("there", "shop", clock))
    for number in range(count):
        sender.send(number + 1, f"orders/{number}", receipt=receipt)
    return sender


def looks_while(looks, do):
    """What `do` needed."""
    before = dict(looks)
    do()
    return {name: looks[name] - before[name] for name in looks}


def lost_answer(count, looks):
    """The peer has taken a push of so many lanes, and its answer was lost: it is asked for their heads."""
    sender = sender_of(count)
    push = sender.ship()
    push.arrive()
    push.lose()
    found = looks_while(looks, lambda: sender.flow(step=10))
    assert sender.server.ids == [ident(number + 1) for number in range(count)]
    assert sender.outbox.lanes() == []
    return found


def wiped(count, looks):
    """The peer lost so many lanes of which only receipts are awaited."""
    sender = sender_of(count, receipt=True)
    sender.flow()
    sender.server.wipe()
    sender.send(99, "common")
    found = looks_while(looks, lambda: sender.flow(step=10))
    assert len(sender.server.lives[-1]) == count + 1
    return found


def fetched(count, looks):
    """A peer that fetches says what it has of so many lanes."""
    sender = sender_of(count)
    fetcher = Fetcher(sender.clock, sender)
    found = looks_while(looks, fetcher.flow)
    assert sorted(fetcher.ids) == [ident(number + 1) for number in range(count)]
    assert sender.outbox.lanes() == []
    return found


def wiped_fetcher(count, looks):
    """A peer that fetches lost what it had of so many lanes."""
    sender = sender_of(count, receipt=True)
    Fetcher(sender.clock, sender).flow()
    anew = Fetcher(sender.clock, sender)
    found = looks_while(looks, anew.flow)
    assert sorted(anew.ids) == [ident(number + 1) for number in range(count)]
    return found


@pytest.mark.parametrize("scene", [lost_answer, wiped, fetched, wiped_fetcher])
def test_heads_of_many_lanes_are_compared_with_as_many_looks_as_those_of_few(scene, looks):
    """All lanes are read once for an answer and not once for each lane that it names."""
    few = scene(FEW, looks)
    assert scene(MANY, looks) == few


def test_a_store_that_was_rolled_back_takes_new_numbers_once_for_an_answer(looks):
    """What the answer says of the other lanes was said of the old numbers, and means nothing any more."""
    sender = sender_of(MANY)
    image = sender.image()
    sender.flow()
    for number in range(MANY):
        sender.send(100 + number, f"orders/{number}")
    sender.flow()
    old = Sender(sender.clock, sender.server, image)
    push = old.ship()
    push.lose()
    assert looks_while(looks, lambda: old.flow(step=10))["renumber"] == 1
    assert old.outbox.lanes() == []
    assert old.told("rolled_back") == 1


@pytest.mark.parametrize("foreign", ["a", "b"])
def test_what_was_pushed_under_old_numbers_settles_nothing_under_new_ones(foreign):
    """One lane of a push shows that this store was rolled back, another was taken: its verdict means numbers that
    other messages have now. So does that of a push which was under way meanwhile.
    """
    sender = sender_of(0)
    for channel in ("a", "b", "c"):
        sender.send(ord(channel), channel)
    sender.flow()
    image = sender.image()
    sender.send(1, foreign)
    sender.flow()
    old = Sender(sender.clock, sender.server, image)
    numbers = range(10, 20)
    for number in numbers:
        old.send(number, "a")
        old.send(100 + number, "b")
    push = old.ship()
    for number in numbers:
        old.send(200 + number, "c")
    (other,) = (flight for flight in old.turn() if flight is not push)
    for flight in (push, other):
        flight.arrive()
    for number in numbers:
        old.send(300 + number, "a")
        old.send(400 + number, "b")
        old.send(500 + number, "c")
    for flight in (push, other):
        flight.come_back()
    old.flow(step=10)
    assert old.outbox.lanes() == []
    sent = {ident(number + more) for number in numbers for more in range(0, 600, 100)}
    assert sent - set(old.server.ids) == set()
