"""Processes whose messages one of them stores for all: nothing is lost or there twice, whatever the store says."""

import errno
import os
import threading

import pytest
from dropr_storage_sqlite.outbox import together
from together_rig import LANE, message, places

from dropr_core.errors import QueueFull, StoreError, WriteFailed
from dropr_core.model.names import Lane
from dropr_core.storage_kit import posts as kit


def test_one_commit_and_one_sync_for_all_that_wait(rig, synced):
    """Three have posted; whoever leads next stores them together, and each gets the number of its own message."""
    rig.hold()
    sent = [rig.sends(number) for number in range(3)]
    rig.free()
    rig.wake(1)
    numbers = {one.id: future.result(30)[0].sequences[0] for one, future in sent}
    assert synced == ["outbox.db-wal"]
    assert sorted(numbers.values()) == [7, 8, 9]
    assert numbers.items() <= places(rig.stores[0]).items()


def test_who_meets_nobody_posts_nothing(rig, synced):
    """It leads at once, and its transaction notes nothing."""
    rig.stores[0].outbox.append([message()])
    assert rig.posts._words[kit._TICKET + rig.place(0)] == 0
    assert rig.stores[0].outbox.engine.look(together.sql.TAKEN) == []
    assert synced == ["outbox.db-wal"]


def test_what_differs_in_the_messages_is_kept(rig):
    """Receipts, lifetimes and other lanes."""
    rig.hold()
    first, one = rig.sends(0, message()._replace(receipt=True, expires_in=60.0, delayed=True, envelope=b"other"))
    second, two = rig.sends(1, message()._replace(channel="bills", priority=3))
    rig.free()
    rig.wake(1)
    assert (one.result(30)[0].sequences, two.result(30)[0].sequences) == ((7,), (1,))
    kept = {item.id: item for item in rig.stores[2].outbox.take(LANE, 100, 1 << 30).entries}
    assert kept[first.id].envelope == b"other"
    (other,) = rig.stores[2].outbox.take(Lane("peer", "bills", 3), 100, 1 << 30).entries
    assert other.id == second.id


def test_one_that_is_answered_late_looks_before_it_stores_by_itself(rig, monkeypatch):
    """Whoever led committed its message and is stuck in the sync: the message is there once, with its number."""
    rig.hold()
    at_the_disk, go_on, real = threading.Event(), threading.Event(), os.fdatasync

    def slow(fd):
        if not at_the_disk.is_set():
            at_the_disk.set()
            assert go_on.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    _, stuck = rig.sends(0)
    monkeypatch.setattr(kit, "PATIENCE", 0.5)
    two, late = rig.sends(1)
    rig.free()
    rig.wake(0)
    assert at_the_disk.wait(30)
    number = late.result(30)[0].sequences[0]
    assert not stuck.done()
    go_on.set()
    assert stuck.result(30)
    assert places(rig.stores[2])[two.id] == number
    assert len(places(rig.stores[2])) == 8


def test_a_sync_that_fails_fails_for_all_that_were_in_it(rig, monkeypatch):
    """Nobody is told that it is stored, and what may be there is there once."""

    def fail(_fd):
        raise OSError(errno.EIO, "Input/output error")

    rig.hold()
    sent = [rig.sends(number) for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        rig.free()
        rig.wake(2)
        for _, future in sent:
            with pytest.raises(WriteFailed):
                future.result(30)
    rig.stores[0].outbox.append([message()])
    assert len(places(rig.stores[0])) in {7, 10}


def test_an_error_of_what_is_stored_together_fails_nobody(rig, monkeypatch):
    """Each is stored by itself then."""
    bad = message()
    real = together.Together._take

    def take(self, connection, calls):
        if any(one.payload is not None and bad.id in one.payload for one in self._posts.posted()):
            real(self, connection, calls)
            raise StoreError("planted")
        return real(self, connection, calls)

    monkeypatch.setattr(together.Together, "_take", take)
    rig.hold()
    good, future = rig.sends(0)
    _, other = rig.sends(1, bad)
    rig.free()
    rig.wake(0)
    assert future.result(30)[0].sequences
    assert other.result(30)[0].sequences
    assert len(places(rig.stores[0])) == 8
    assert good.id in places(rig.stores[0])


def test_what_is_torn_is_stored_by_its_sender(rig):
    """Half of what was posted was seen: nobody stores that."""
    rig.hold()
    one, future = rig.sends(0)
    rig.posts._map[kit.PAGE * (rig.place(0) + 1) + 5] ^= 1
    two, other = rig.sends(1)
    rig.free()
    rig.wake(1)
    assert future.result(30) and other.result(30)
    assert {one.id, two.id} <= places(rig.stores[0]).keys()
    assert len(places(rig.stores[0])) == 8


def test_a_full_disk_is_told_to_whom_it_meets(rig):
    """SQLite has no page left for all of them: who has room by itself is stored, the others get QueueFull and are not
    there, and they can send when there is room.
    """
    rig.stores[0].outbox.append([message()])
    writers = [writer for store in rig.stores for writer in store.outbox.engine._writers.values()]
    for writer in writers:
        writer.pragma("max_page_count", writer.pragma("page_count"))
    rig.hold()
    sent = [rig.sends(number, message()._replace(envelope=bytes(3500))) for number in range(3)]
    rig.free()
    rig.wake(1)
    errors = {one.id: future.exception(30) for one, future in sent}
    full = [one for one, _ in sent if errors[one.id] is not None]
    assert full
    assert {type(errors[one.id]) for one in full} == {QueueFull}
    stored = places(rig.stores[0]).keys() & errors.keys()
    assert stored == errors.keys() - {one.id for one in full}
    for writer in writers:
        writer.pragma("max_page_count", 10**6)
    for one in full:
        rig.stores[2].outbox.append([one])
    assert errors.keys() <= places(rig.stores[0]).keys()
    assert len(places(rig.stores[0])) == 10


def test_without_a_fifo_everybody_sends_by_himself(rig, monkeypatch):
    """A file system that has none: as if there was nobody else, and it is not tried each time."""
    tried = []

    def refuse(*_):
        tried.append(1)
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mkfifo", refuse)
    rig.stores[0].outbox.appender._together._posts.close()
    for _ in range(3):
        rig.stores[0].outbox.append([message()])
    assert tried == [1]
    assert len(places(rig.stores[0])) == 9


def test_a_message_that_is_too_long_goes_its_own_way(rig):
    """There is no room for it."""
    rig.hold()
    rig.stores[0].outbox.append([message()._replace(envelope=bytes(kit.PAGE))])
    assert rig.posts._waiting() == []
    rig.free()


def test_a_store_that_is_closed_leaves_no_fifo_behind(rig):
    """And takes no place again."""
    rig.stores[0].outbox.append([message()])
    name = rig.directory / "outbox.senders" / str(rig.place(0))
    assert name.is_fifo()
    rig.stores[0].close()
    assert not name.exists()
