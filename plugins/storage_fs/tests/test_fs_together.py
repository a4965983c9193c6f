"""Processes that write to one log share its flushes, and nobody believes in one that failed."""

import fcntl
import os
import threading

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine.locking import FLUSHES
from dropr_storage_fs.files import disk, shared

from dropr_core.contracts.storage import Selection
from dropr_core.errors import WriteFailed
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context, outgoing, send, taken

ANOTHER = 1
"""The number of some other process."""


@pytest.fixture
def opener(tmp_path):
    opened, clock = [], FakeClock()

    def make():
        opened.append(dropr_storage(Options(reserve=0), make_context(tmp_path, clock)))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


@pytest.fixture
def flushes(monkeypatch):
    """How often something was flushed."""
    count, real = [0], disk.flush_file

    def counting(fd):
        count[0] += 1
        real(fd)

    monkeypatch.setattr(disk, "flush_file", counting)
    return count


def written_by(storage, process, left=0):
    """As if that process had been the last to write to the lane."""
    storage.outbox.engine.read(lambda _state: log_of(storage).slots.set(shared.WRITER, left << 32 | process))


def log_of(storage):
    return storage.outbox.engine.log(0)


def end_of(storage):
    return storage.outbox.engine.read(lambda _state: log_of(storage).end)


class Waiting:
    """A send by another thread that waits for those who flush."""

    def __init__(self, storage, before):
        self.error = None
        self._storage = storage
        self._thread = threading.Thread(target=self._send)
        lock, real, queued = storage.outbox.engine._lock, fcntl.flock, threading.Event()

        def flock(fd, how):
            if how == fcntl.LOCK_EX and fd in lock._flush_fds:  # it has found all places taken
                queued.set()
            real(fd, how)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            self._thread.start()
            assert queued.wait(60), "it does not wait for a place"
        assert end_of(storage) != before, "nothing was written"

    def _send(self):
        try:
            send(self._storage.outbox, 1)
        except Exception as error:
            self.error = error

    def ended(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


class Flushing:
    """Other processes that flush: all places are taken."""

    def __init__(self, storage, tmp_path):
        written_by(storage, ANOTHER)
        send(storage.outbox, 1)  # makes the files
        self._fds = [os.open(tmp_path / "outbox" / f"flush{number}.lock", os.O_RDWR) for number in range(FLUSHES)]
        for fd in self._fds:
            fcntl.flock(fd, fcntl.LOCK_EX)

    def end(self):
        for fd in self._fds:
            os.close(fd)


def test_who_writes_alone_flushes_without_asking(opener, tmp_path, flushes):
    """One process alone takes no place, and flushes each send once."""
    storage = opener()
    for _ in range(5):
        send(storage.outbox, 1)
    flushes[0] = 0
    for _ in range(5):
        send(storage.outbox, 1)
    assert flushes[0] == 5
    assert not list(tmp_path.glob("outbox/flush*.lock"))


def test_a_flush_is_for_all_who_have_written(opener, tmp_path, flushes):
    """Those who wait while others flush are done with one flush together, and what they wrote can be taken."""
    storage, one, other = opener(), opener(), opener()
    send(storage.outbox, 1)
    others = Flushing(storage, tmp_path)
    written_by(storage, ANOTHER)
    flushes[0] = 0
    first = Waiting(one, end_of(storage))
    second = Waiting(other, end_of(storage))
    assert len(taken(storage.outbox, mark_in_flight=False).entries) == 2, "it is shown before it is flushed"
    others.end()
    assert first.ended() is second.ended() is None
    assert flushes[0] == 1
    assert len(taken(storage.outbox).entries) == 4


def test_a_flush_by_another_is_found(opener, tmp_path, flushes):
    """Who finds that all it wrote was flushed meanwhile flushes nothing."""
    storage, one = opener(), opener()
    send(storage.outbox, 1)
    others = Flushing(storage, tmp_path)
    written_by(storage, ANOTHER)
    flushes[0] = 0
    waiting = Waiting(one, end_of(storage))

    def flush(_state):
        log = log_of(storage)
        os.fdatasync(log.segments.open(log.end.segment).fd)
        log.slots.set_flushed(log.end)

    storage.outbox.engine.read(flush)
    others.end()
    assert waiting.ended() is None
    assert flushes[0] == 0
    assert len(taken(storage.outbox).entries) == 3


def test_what_was_given_up_meanwhile_is_not_promised(opener, tmp_path, monkeypatch):
    """Another process meets a disk error and cuts the log: who waited gets the error, and nothing of it is there."""
    storage, one = opener(), opener()
    send(storage.outbox, 1)
    others = Flushing(storage, tmp_path)
    written_by(storage, ANOTHER)
    waiting = Waiting(one, end_of(storage))
    written_by(storage, os.getpid())

    def broken(_fd):
        raise OSError(5, "the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "flush_file", broken)
        with pytest.raises(WriteFailed):
            storage.outbox.append([outgoing()])
    others.end()
    assert isinstance(waiting.ended(), WriteFailed)
    send(one.outbox, 1)
    assert storage.outbox.lanes()[0].depth == 3
    assert len(storage.outbox.scan(Selection(), limit=9)) == 3


def test_it_never_shares_a_promise_that_stands_in_two_logs(opener, tmp_path, flushes):
    """A multicast whose intent is not flushed is not noted as flushed by somebody else's flush."""
    storage, one = opener(), opener()
    storage.outbox.append([outgoing(peers=("there", "elsewhere"))])
    others = Flushing(storage, tmp_path)
    written_by(storage, ANOTHER)
    waiting = Waiting(one, end_of(storage))
    gate, reached, real = threading.Event(), threading.Event(), disk.flush_file

    def slow(fd):
        reached.set()
        assert gate.wait(60)
        real(fd)

    disk_flush = disk.flush_file
    disk.flush_file = slow
    try:
        multicast = threading.Thread(target=storage.outbox.append, args=([outgoing(peers=("there", "elsewhere"))],))
        multicast.start()
        assert reached.wait(60)
        disk.flush_file = disk_flush
        others.end()
        assert waiting.ended() is None
        assert len(taken(one.outbox, mark_in_flight=False).entries) == 3
    finally:
        disk.flush_file = disk_flush
        gate.set()
        multicast.join(60)
    assert len(taken(one.outbox).entries) == 4
