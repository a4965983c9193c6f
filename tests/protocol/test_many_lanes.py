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
