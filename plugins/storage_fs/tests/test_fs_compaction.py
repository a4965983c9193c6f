"""Segments go when nothing in them is needed, and a few needed messages do not keep them."""

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.files import log as logs

from dropr_core.contracts.storage import Ack, Bury, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import LANE, PEER, Source, Worker, deliver, make_context, send, state_of, taken

LIFE = 1e9


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Opens the same store with tiny segments; closes what is open."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    clock, opened = FakeClock(), []

    def make():
        while opened:
            opened.pop().close()
        opened.append(dropr_storage(Options(reserve=0), make_context(tmp_path, clock)))
        return opened[0]

    yield make
    while opened:
        opened.pop().close()


def segments(half):
    return len(half.engine.log(0).segments.names())


def test_delivered_and_acknowledged_messages_free_their_segments(place):
    """After a sweep only the segment that is written to is left, in both halves."""
    storage = place()
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    for _ in range(20):
        send(storage.outbox, 20)
        source.fill(20)
    assert segments(storage.outbox) > 3
    assert segments(storage.inbox) > 3
    deliver(storage.outbox)
    assert all(storage.inbox.settle([Ack(claim) for claim in worker.claim(1000)]))
    storage.outbox.sweep(LIFE)
    storage.inbox.sweep()
    assert (segments(storage.outbox), segments(storage.inbox)) == (1, 1)
    again = place()
    assert again.outbox.lanes() == []
    assert again.outbox.append([]) == []
    send(again.outbox, 1)
    assert taken(again.outbox).entries[0].sequence == 401


def test_a_straggler_never_pins_a_segment(place):
    """What is awaited, dead or buried is copied forward, and can be sent, read and kicked from there."""
    storage = place()
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    awaited, poison = send(storage.outbox, 1, receipt=True), send(storage.outbox, 1)
    storage.outbox.dead_letter(LANE, 2, "poison")
    buried = source.fill(1)
    storage.inbox.settle([Bury(worker.one(), "no")])
    for _ in range(20):
        send(storage.outbox, 20)
        source.fill(20)
    deliver(storage.outbox)
    assert all(storage.inbox.settle([Ack(claim) for claim in worker.claim(1000)]))
    for _ in range(2):
        storage.outbox.sweep(LIFE)
        storage.inbox.sweep()
    assert (segments(storage.outbox), segments(storage.inbox)) == (1, 1)
    for again in (False, True):
        storage = place() if again else storage
        assert [state_of(storage.outbox, one[0]) for one in (awaited, poison)] == ["accepted", "dead"]
        assert storage.outbox.envelope(poison[0]) == b"envelope 0"
        assert storage.inbox.envelope(buried[0]) == b"envelope 0"
        assert storage.outbox.lanes() == []
    assert storage.outbox.redrive(Selection()) == 1
    assert [entry.id for entry in taken(storage.outbox).entries] == poison
    assert storage.inbox.kick(Selection()) == 1
    assert Worker(storage.inbox).one().envelope == b"envelope 0"
    log = StoreId(b"log----1")
    assert storage.outbox.receipts(PEER, log, [Outcome(1, awaited[0], State.PROCESSED)], 1) == awaited


def test_a_straggler_that_the_peer_lost_is_sent_again(place):
    """A rewind finds what was copied forward: it goes to the end of its lane, as a possible duplicate."""
    storage = place()
    awaited = send(storage.outbox, 1, receipt=True)
    for _ in range(20):
        send(storage.outbox, 20)
    deliver(storage.outbox)
    storage.outbox.sweep(LIFE)
    storage.outbox.sweep(LIFE)
    assert segments(storage.outbox) == 1
    assert storage.outbox.rewind(LANE, START) == 1
    for again in (False, True):
        storage = place() if again else storage
        batch = taken(storage.outbox)
        assert [(entry.id, entry.possible_duplicate) for entry in batch.entries] == [(awaited[0], True)]
        assert batch.after == START
