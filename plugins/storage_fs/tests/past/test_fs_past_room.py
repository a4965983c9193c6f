"""What is over takes little room: its memory does not grow, and it keeps no segment of the log."""

import tracemalloc

import pytest
from dropr_storage_fs.engine import generations, remembered
from dropr_storage_fs.files import log as logs
from fs_past_rig import bury, end, keep, put_down, refuse

from dropr_core.contracts.storage import Ack, Selection
from dropr_core.testing.builders import Source, Worker, deliver, send


@pytest.mark.usefixtures("soon")
def test_bodies_of_what_stands_in_files_never_pin_a_segment(opener, monkeypatch):
    """They are copied forward, and read and sent from there; a body that nobody needs goes."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    storage = opener()
    failed, buried = refuse(storage), end(storage, bury)
    gone = refuse(storage)
    put_down(storage)
    source = Source(storage.inbox)
    for _ in range(20):
        send(storage.outbox, 20)
        source.fill(20)
    assert storage.outbox.wipe(Selection(ids=tuple(gone))) == 1
    deliver(storage.outbox)
    assert all(storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim(1000)]))
    for _ in range(3):
        storage.outbox.sweep(1e9)
        storage.inbox.sweep()
        put_down(storage)
    for half in (storage.outbox, storage.inbox):
        assert len(half.engine.log(0).segments.names()) == 1
    storage.close()
    storage = opener()
    assert storage.outbox.envelope(failed[0]) == storage.inbox.envelope(buried[0]) == b"envelope 0"
    assert storage.outbox.redrive(Selection()) == storage.inbox.kick(Selection()) == 1


def test_what_has_a_key_leaves_nothing_behind(opener, monkeypatch):
    """A queue of messages with states of their own lets its segments go, and no number of them stays in memory."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    storage = opener()
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    for _ in range(30):
        source.fill(10, key="one")
        for _ in range(10):
            assert all(storage.inbox.settle([Ack(worker.one())]))
    storage.inbox.sweep()
    assert len(storage.inbox.engine.log(0).segments.names()) == 1
    assert storage.inbox.engine.state.numbers[0].voids.packed() == []
    source.fill(1)
    storage.close()
    assert Worker(opener().inbox).one().envelope == b"envelope 0"


class Filling:
    """Messages for one inbox, of one sender."""

    def __init__(self, storage):
        self.storage, self.source, self.worker = storage, Source(storage.inbox), Worker(storage.inbox)

    def end(self, how, count, **fields):
        self.source.fill(count, **fields)
        assert all(self.storage.inbox.settle([how(claim) for claim in self.worker.claim(count)]))


def failing(filling, count):
    refuse(filling.storage, count)


def burying(filling, count):
    filling.end(bury, count)


def keeping(filling, count):
    filling.end(keep, count)


def answering(filling, count):
    filling.end(Ack, count, receipt=True)


@pytest.mark.parametrize("work", [failing, burying, keeping, answering])
def test_memory_does_not_grow_with_what_is_over(opener, monkeypatch, work):
    """Ten times as many of each kind are remembered in the same memory."""
    monkeypatch.setattr(remembered, "SET_DOWN_AT", 200)
    monkeypatch.setattr(remembered, "RUN_LEAST", 200)
    monkeypatch.setattr(generations, "JOURNAL_MIN", 1 << 16)
    storage = opener()
    filling = Filling(storage)
    work(filling, 200)
    tracemalloc.start()
    try:
        sizes = []
        for rounds in (4, 36):
            for _ in range(rounds):
                work(filling, 100)
                storage.inbox.flush()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / 3600 < 200, f"{sizes} bytes for 400 and 4,000"
