"""The flush of what was committed without one: what it syncs, whom it keeps waiting, and what follows when it fails."""

import errno
import logging
import os
import subprocess
import sys

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Job
from dropr_core.errors import WriteFailed
from dropr_core.model.names import IdMaker
from dropr_core.system.clock import FakeClock

make = IdMaker()
SLOW = Options(flush=3600.0, reserve=0)
"""Nothing is flushed but what the test flushes."""


@pytest.fixture
def events():
    return []


@pytest.fixture
def storage(tmp_path, events):
    context = Context(
        node="n", data=tmp_path, clock=FakeClock(), log=logging.getLogger("t"), min_free=0,
        event=lambda name, _details: events.append(name),
    )  # fmt: skip
    opened = dropr_storage(SLOW, context)
    yield opened
    opened.close()


def acknowledge_one(storage):
    storage.inbox.put("orders", 5, "n", [Job(make(), b"x")])
    consumer = storage.inbox.register()
    (claim,) = storage.inbox.claim(["orders"], 1, consumer)
    assert storage.inbox.settle([Ack(claim)]) == [True]


def test_the_first_flush_is_a_commit_and_those_after_it_sync_the_log(storage, synced):
    """A commit of SQLite's own makes the log's name durable, too; after it the log itself is all there is to sync."""
    acknowledge_one(storage)
    storage.inbox.flush()
    assert synced == []
    acknowledge_one(storage)
    storage.inbox.flush()
    assert synced == ["inbox.db-wal"]


@pytest.fixture
def elsewhere(tmp_path):
    """Runs statements on the inbox's file in another process, which then waits until it is told to go on.

    Another process, because two SQLite libraries in one would undo each other's locks.
    """
    program = (
        "import sqlite3, sys\n"
        "file = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for line in sys.stdin:\n"
        "    print(file.execute(line).fetchall(), flush=True)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "inbox.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def execute(statement):
            process.stdin.write(statement + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield execute
        process.stdin.close()


def test_a_flush_waits_for_no_writer_and_keeps_none_waiting(storage, synced, elsewhere):
    """It goes through while another process is in the middle of a transaction."""
    acknowledge_one(storage)
    storage.inbox.flush()
    assert elsewhere("BEGIN IMMEDIATE") == "[]"
    storage.inbox.flush()
    assert elsewhere("ROLLBACK") == "[]"
    assert synced == ["inbox.db-wal"]


def test_a_disk_that_refuses_to_sync_the_log_is_not_trusted(storage, synced, monkeypatch, events):
    """The flush fails and is still owed; the next one is a commit over a fresh connection."""
    acknowledge_one(storage)
    storage.inbox.flush()

    def fail(_fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(WriteFailed, match="may be undone"):
            storage.inbox.flush()
    assert storage.inbox.engine.flusher.dirty
    storage.inbox.flush()
    assert synced == ["inbox.db-wal"], "it is written again"
    assert events == ["write_failed", "trusted"]
    storage.inbox.flush()
    assert synced == ["inbox.db-wal"] * 2


def test_a_log_is_closed_by_the_last_who_syncs_it(storage, monkeypatch):
    """To close the store's log waits for no sync under way, and takes no descriptor away from it."""
    acknowledge_one(storage)
    storage.inbox.flush()
    log, real, seen = storage.inbox.engine._wal, os.fdatasync, []

    def closed_meanwhile(fd):
        log.close()
        real(fd)  # it is still open
        seen.append(fd)

    monkeypatch.setattr(os, "fdatasync", closed_meanwhile)
    assert log.sync()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])
    assert not log.sync()


def test_a_log_that_others_began_anew_needs_no_other_descriptor(storage, synced, elsewhere, tmp_path):
    """A checkpoint by another process has synced what stood in the log before; the log keeps its file."""
    acknowledge_one(storage)
    storage.inbox.flush()
    assert elsewhere("PRAGMA wal_checkpoint(RESTART)").startswith("[(0,")
    acknowledge_one(storage)
    storage.inbox.flush()
    assert synced == ["inbox.db-wal"]
    assert os.fstat(storage.inbox.engine._wal._fd).st_ino == (tmp_path / "inbox.db-wal").stat().st_ino
