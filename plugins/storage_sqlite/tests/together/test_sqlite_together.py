"""Processes whose messages one of them stores for all: nothing is lost or there twice, whoever dies, stops or fails."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.outbox import together

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import StoreError, WriteFailed
from dropr_core.model.names import IdMaker, Lane
from dropr_core.storage_kit import posts as kit
from dropr_core.storage_kit.posts import Posts
from dropr_core.system.clock import SystemClock

LANE = Lane("peer", "orders", 5)
make = IdMaker()


def message():
    return NewMessage(make(), "orders", 5, ("peer",), b"x")


def opened(directory):
    context = Context(node="n", data=directory, clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
    return dropr_storage(Options(flush=3600.0, reserve=0, busy=30.0), context)


def until(condition):
    """Return once it is so."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.001)


def places(storage):
    """Where each message stands, which is there once."""
    entries = storage.outbox.take(LANE, 1000, 1 << 30).entries
    found = {entry.id: entry.sequence for entry in entries}
    assert len(found) == len(entries)
    return found


class Rig:
    """A store that several have open and send into, who reckon with each other; and who leads is up to the test."""

    def __init__(self, directory):
        self.directory = directory
        self.stores = [opened(directory) for _ in range(3)]
        for _ in range(2):
            for store in self.stores:
                store.outbox.append([message()])
        self.posts = Posts(directory / "outbox.senders")
        assert self.posts.open()
        assert all(store.outbox.appender._together._posts.open() for store in self.stores)
        self.pool = ThreadPoolExecutor(8)
        self.others = []

    def hold(self):
        """Nobody else leads."""
        until(self.posts.lead)

    def free(self):
        """Somebody may lead, and nobody is woken for it."""
        fcntl.flock(self.posts._fd, fcntl.LOCK_UN)

    def sends(self, number=0, one=None):
        """A send that finds somebody who leads; it has posted when this returns."""
        before = len(self.posts._waiting())
        one = one or message()
        future = self.pool.submit(self.stores[number].outbox.append, [one])
        until(lambda: len(self.posts._waiting()) > before)
        return one, future

    def wake(self, number):
        """As if its turn had come, or its patience had ended."""
        self.posts._ring(self.place(number))

    def place(self, number):
        return self.stores[number].outbox.appender._together._posts.place

    def close(self):
        for other in self.others:
            with other:
                other.kill()
        for store in self.stores:
            store.close()
        self.posts.close()
        self.pool.shutdown()


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "PATIENCE", 30.0)
    monkeypatch.setattr(kit, "LOOK_AGAIN", 30.0)
    rig = Rig(tmp_path)
    yield rig
    rig.close()


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


OTHER = """
import logging, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_sqlite_together as rig
from dropr_core.storage_kit import posts as kit
from dropr_storage_sqlite.outbox.together import Together
kit.PATIENCE = kit.LOOK_AGAIN = 30.0
store = rig.opened(Path(sys.argv[1]))
store.outbox.append([rig.message()])
store.outbox.engine.flush()
store.outbox.engine.company.met()
how = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
moment, deed = sys.argv[3], how[sys.argv[4]]
die = lambda: os.kill(os.getpid(), deed)
take, wait, gather = Together._take, kit.Posts.wait, kit.Posts.gather
if moment == "posted":
    kit.Posts.wait = lambda *words: die() or wait(*words)
if moment == "leading":
    kit.Posts.gather = lambda *words: die() or gather(*words)
if moment == "taken":
    Together._take = lambda *words: (take(*words), die())[0]
if moment == "committed":
    real = os.fdatasync
    os.fdatasync = lambda fd: die() or real(fd)
one = rig.message()
print(one.id.hex(), flush=True)
store.outbox.append([one])
print("sent", flush=True)
store.close()
"""


class Other:
    """Another process, which something happens to at one moment of its send."""

    def __init__(self, rig, moment, deed):
        self._rig, before = rig, len(rig.posts._waiting())
        words = [sys.executable, "-c", OTHER, str(rig.directory), str(Path(__file__).parent), moment, deed]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        rig.others.append(self.process)
        self.id = bytes.fromhex(self.process.stdout.readline())
        until(lambda: len(rig.posts._waiting()) > before)
        self.place = next(place for place, _ in rig.posts._waiting() if place not in map(rig.place, range(3)))

    def leads(self):
        """It stores for all."""
        self._rig.free()
        self._rig.posts._ring(self.place)

    def state(self):
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


MOMENTS = ["leading", "taken", "committed"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leads_is_killed_and_nothing_is_stored_twice_or_lost(rig, moment):
    """Before its transaction, within it, and after its commit: whoever waits stores what is not stored yet."""
    rig.hold()
    other = Other(rig, moment, "killed")
    one, future = rig.sends(0)
    two, second = rig.sends(1)
    other.leads()
    assert other.process.wait(30) == -signal.SIGKILL
    rig.wake(0)
    numbers = future.result(30)[0].sequences[0], second.result(30)[0].sequences[0]
    found = places(rig.stores[2])
    assert (found[one.id], found[two.id]) == numbers
    assert other.id in found, "its send never returned; what it had posted was stored with the others'"
    assert sorted(found.values()) == list(range(1, 11))


def test_who_waits_looks_whether_anybody_leads(rig, monkeypatch):
    """Nobody wakes it: whoever led was killed."""
    rig.hold()
    monkeypatch.setattr(kit, "LOOK_AGAIN", 0.001)
    one, future = rig.sends(0)
    rig.free()
    number = future.result(30)[0].sequences[0]
    assert places(rig.stores[1])[one.id] == number


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_leads_is_stopped_and_stops_nobody_for_long(rig, moment, monkeypatch):
    """The others store by themselves; when it goes on it stores nothing of theirs again."""
    rig.hold()
    other = Other(rig, moment, "stopped")
    monkeypatch.setattr(kit, "PATIENCE", 0.5)
    one, future = rig.sends(0)
    other.leads()
    until(lambda: other.state() == "T")
    if moment == "taken":  # within SQLite's lock, which lasts as long as ever
        other.process.send_signal(signal.SIGCONT)
    number = future.result(30)[0].sequences[0]
    other.process.send_signal(signal.SIGCONT)
    assert other.process.stdout.readline() == "sent\n"
    assert other.process.wait(30) == 0
    found = places(rig.stores[2])
    assert found[one.id] == number
    assert sorted(found.values()) == list(range(1, 10))


def test_one_that_is_killed_after_it_has_posted_is_stored_once_at_most(rig):
    """Its send never returned. Its place is free for another process."""
    rig.hold()
    other = Other(rig, "posted", "killed")
    assert other.process.wait(30) == -signal.SIGKILL
    rig.free()
    rig.stores[0].outbox.append([message()])
    found = places(rig.stores[0])
    assert other.id in found
    assert len(found) == 9
    again = Posts(rig.directory / "outbox.senders")
    assert again.open()
    assert again.place == other.place
    assert rig.posts._waiting() == []
    again.close()


def test_what_nobody_waits_for_any_more_is_not_stored(rig, monkeypatch):
    """It was posted long ago by a process that died."""
    rig.hold()
    other = Other(rig, "posted", "killed")
    assert other.process.wait(30) == -signal.SIGKILL
    monkeypatch.setattr(kit, "STALE", 0)
    rig.free()
    rig.stores[0].outbox.append([message()])
    assert other.id not in places(rig.stores[0])
    assert rig.posts._waiting() == []


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
