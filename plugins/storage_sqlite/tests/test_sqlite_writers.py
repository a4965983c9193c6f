"""Processes that write one outbox: their turns, and what one of them sees that another has not flushed yet."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import WriteFailed
from dropr_core.model.names import IdMaker, Lane
from dropr_core.system.clock import FakeClock

LANE = Lane("peer", "orders", 5)
make = IdMaker()
LOG = "outbox.db-wal"


def message():
    return NewMessage(make(), "orders", 5, ("peer",), b"x")


OTHER = """
import logging, os, signal, sys
from pathlib import Path
from dropr_core.system.clock import SystemClock
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.model.names import IdMaker
from dropr_storage_sqlite import dropr_storage
context = Context(node="n", data=Path(sys.argv[1]), clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
storage = dropr_storage(None, context)
for line in sys.stdin:
    if line == "killed\\n":
        os.fdatasync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
    storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
    print("sent", flush=True)
storage.close()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that sends into the same store when it is told to."""
    words = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def send(how="once"):
            process.stdin.write(how + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield send
        process.stdin.close()


def opened(directory):
    context = Context(node="n", data=directory, clock=FakeClock(), log=logging.getLogger("t"), min_free=0)
    return dropr_storage(Options(flush=3600.0, reserve=0), context)


@pytest.fixture
def storage(tmp_path, other):
    """A store with three messages that two processes have sent in turns: each reckons with the other."""
    storage = opened(tmp_path)
    storage.outbox.append([message()])
    assert other() == "sent"
    storage.outbox.append([message()])
    yield storage
    storage.close()


def test_what_is_sent_is_flushed_once(storage, synced):
    """A send syncs the log by itself, and the daemon that takes the message owes nothing."""
    storage.outbox.append([message()])
    assert synced == [LOG]
    assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 4
    assert synced == [LOG]


def test_who_sends_alone_leaves_the_sync_to_sqlite(tmp_path, synced):
    """Nobody waits for the lock, and it costs a little less."""
    storage = opened(tmp_path)
    for _ in range(3):
        storage.outbox.append([message()])
    assert synced == []
    storage.close()


def test_what_a_killed_process_did_not_flush_is_flushed_before_it_is_carried(storage, other, synced):
    """It was killed between its commit and the sync: others see the message, and sync the log before a peer gets it."""
    assert other() == "sent"
    assert other("killed") == ""
    assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 5
    assert synced == [LOG]
    assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 5
    assert synced == [LOG], "once is enough"


def test_the_disk_of_a_sender_keeps_no_other_writer_waiting(storage, monkeypatch):
    """While a send waits for the disk, the daemon moves the head of a lane."""
    at_the_disk, go_on, real = threading.Event(), threading.Event(), os.fdatasync

    def slow(fd):
        at_the_disk.set()
        assert go_on.wait(30)
        real(fd)

    batch = storage.outbox.take(LANE, 10, 10**6)
    monkeypatch.setattr(os, "fdatasync", slow)
    sender = threading.Thread(target=storage.outbox.append, args=([message()],))
    sender.start()
    assert at_the_disk.wait(30)
    storage.outbox.settle(LANE, batch.upto)
    assert storage.outbox.lanes()[0].depth == 1
    go_on.set()
    sender.join()


@pytest.fixture
def turn_taken(tmp_path):
    """Somebody else has the turn, and stays in it."""
    fd = os.open(tmp_path / "outbox.writers", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield
    os.close(fd)


def test_a_turn_that_is_never_given_back_stops_nobody(storage, turn_taken):
    """Its holder was stopped, say: a send goes through without a turn."""
    storage.outbox.append([message()])
    assert storage.outbox.lanes()[0].depth == 4


def test_a_turn_is_given_back(storage, tmp_path):
    """After a send, and after one that fails, another process can have the turn."""
    storage.outbox.append([message()])

    def fails(_connection):
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        storage.outbox.engine.write(fails)
    fd = os.open(tmp_path / "outbox.writers", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def flushes(storage):
    """How often a flush was a commit."""
    row = "SELECT value FROM meta WHERE key = 'flush'"
    return storage.outbox.engine.read(lambda connection: connection.execute(row).fetchall()[0][0])


def test_without_room_for_the_counts_a_send_is_a_commit_with_a_flush(storage, synced, monkeypatch):
    """A disk too full for one page more: SQLite syncs within its lock, and whoever takes flushes in any case."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    storage.outbox.engine._drop_writers()
    storage.outbox.append([message()])
    storage.outbox.append([message()])
    assert (synced, flushes(storage)) == ([], 0)
    assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 5
    assert (synced, flushes(storage)) == ([], 1)


def test_counts_that_are_gone_in_the_middle_of_a_send_store_nothing(storage, monkeypatch):
    """The disk refused them just then: the send fails and may be tried again."""
    company = storage.outbox.engine.company

    def refuse():
        company.close()
        monkeypatch.setattr(company, "_open", lambda: None)

    monkeypatch.setattr(company, "take_turn", refuse)
    with pytest.raises(WriteFailed, match="nothing was stored"):
        storage.outbox.append([message()])
    monkeypatch.undo()
    storage.outbox.append([message()])
    assert storage.outbox.lanes()[0].depth == 4


def test_a_log_that_could_not_be_synced_is_written_again(storage, monkeypatch, synced):
    """The send fails; before the next one all of the log is given to the disk again, for there may be a hole in it."""

    def fail(_fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(WriteFailed, match="nothing was promised"):
            storage.outbox.append([message()])
    again, real = [], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, *rest: again.append(os.fstat(fd).st_size) or real(fd, *rest))
    storage.outbox.append([message()])
    assert sum(again) > 4096
    assert synced[-1:] == [LOG]
    assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 5
