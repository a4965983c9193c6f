"""What others see before it is on stable storage: who is told of it when, and who waits for the disk."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import writers
from dropr_storage_sqlite.inbox import lease

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Accepted, Arrival, Job, NewMessage, Selection
from dropr_core.errors import StoreError, WriteFailed
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, IdMaker, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock

LANE = Lane("peer", "orders", 5)
SOURCE = SourceLane("peer", StoreId(b"store--1"), "orders", 5)
make = IdMaker()
OUTBOX, INBOX = "outbox.db-wal", "inbox.db-wal"


def message():
    return NewMessage(make(), "orders", 5, ("peer",), b"x")


def arrival(number):
    """The push of one message of a lane."""
    after = START if number == 1 else Head(number - 1, identity(number - 1))
    return Arrival(SOURCE, after, Head(number, identity(number)), [Job(identity(number), b"x")])


def identity(number):
    return MessageId(number.to_bytes(16, "big"))


def opened(directory):
    context = Context(node="n", data=directory, clock=FakeClock(), log=logging.getLogger("t"), min_free=0)
    return dropr_storage(Options(flush=3600.0, reserve=0), context)


@pytest.fixture
def storage(tmp_path):
    """A store in which each half has the log open."""
    storage = opened(tmp_path)
    storage.outbox.append([message()])
    storage.inbox.accept([arrival(1)])
    storage.outbox.engine.flush()
    storage.inbox.flush()
    yield storage
    storage.close()


@pytest.fixture
def other(tmp_path, storage):
    """The same store, as another process has it."""
    other = opened(tmp_path)
    other.outbox.engine.flush()
    other.inbox.flush()
    yield other
    other.close()


@pytest.fixture
def worker(other):
    """Its consumer, who has taken the first message."""
    consumer = other.inbox.register()
    assert len(other.inbox.claim(["orders"], 1, consumer)) == 1
    return consumer


def test_who_is_told_of_a_send_is_told_before_the_disk_is_waited_for(storage, synced):
    """Once, when the message is there to be read; without anybody to tell, a lone sender leaves the sync to SQLite."""
    told = []
    storage.outbox.append_telling([message()], lambda: told.append((storage.outbox.lanes()[0].depth, list(synced))))
    assert (told, synced) == ([(2, [])], [OUTBOX])
    storage.outbox.append([message()])
    assert synced == [OUTBOX]


def test_what_is_taken_while_its_sender_waits_for_the_disk_is_not_synced_twice(storage, other, synced, monkeypatch):
    """The daemon waits for the sender, who syncs."""
    seen, slow, real = threading.Event(), threading.Event(), os.fdatasync

    def fdatasync(fd):
        assert slow.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    sender = threading.Thread(target=storage.outbox.append_telling, args=([message()], seen.set))
    sender.start()
    assert seen.wait(30)

    def nap(_seconds):
        slow.set()
        sender.join()

    monkeypatch.setattr(writers.time, "sleep", nap)
    assert len(other.outbox.take(LANE, 10, 10**6).entries) == 2
    assert synced == [OUTBOX]


KILLED = """
import logging, os, signal, sys
from pathlib import Path
from dropr_core.system.clock import SystemClock
from dropr_core.contracts.context import Context
from dropr_storage_sqlite import dropr_storage
sys.path.insert(0, sys.argv[3])
from test_sqlite_early import arrival, message
context = Context(node="n", data=Path(sys.argv[1]), clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
storage = dropr_storage(None, context)
storage.outbox.engine.flush()
storage.inbox.flush()
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
told = die if sys.argv[2] == "told" else lambda *_: None
if sys.argv[2] == "syncs":
    os.fdatasync = die
if sys.argv[4] == "outbox":
    storage.outbox.append_telling([message()], told)
else:
    storage.inbox.accept_telling([arrival(2)], told)
"""


def killed(directory, moment, half):
    """A process stores a message and is killed when others are told of it, or when it begins to sync."""
    words = [sys.executable, "-c", KILLED, str(directory), moment, str(Path(__file__).parent), half]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["told", "syncs"])
def test_what_a_killed_sender_has_told_is_synced_before_it_is_carried(storage, tmp_path, synced, moment):
    """Nobody comes any more who would do it: the daemon does, once."""
    killed(tmp_path, moment, "outbox")
    for _ in range(2):
        assert len(storage.outbox.take(LANE, 10, 10**6).entries) == 2
        assert synced == [OUTBOX]


@pytest.mark.parametrize("moment", ["told", "syncs"])
def test_what_a_killed_server_has_told_is_synced_before_its_peer_hears_of_it(storage, tmp_path, synced, moment):
    """A consumer has it in hand at once; the head is told to the peer when it is on stable storage."""
    consumer = storage.inbox.register()
    killed(tmp_path, moment, "inbox")
    assert len(storage.inbox.claim_at_once(["orders"], 10, consumer)) == 2
    assert synced == []
    assert storage.inbox.heads("peer") == {SOURCE: Head(2, identity(2))}
    assert synced == [INBOX]
    # Who dies within a sync may have heard of an error: then the log is written again, and synced once more.
    for _ in range(2):
        assert storage.inbox.heads("peer") == {SOURCE: Head(2, identity(2))}
        assert synced == [INBOX] * (1 if moment == "told" else 2)


def early(storage, number, look):
    """What ``look`` says, asked while the server waits for the disk with a message."""
    said = []
    (word,) = storage.inbox.accept_telling([arrival(number)], lambda words: said.append((words, look())))
    ((words, answer),) = said
    assert words == [word] == [Accepted(Head(number, identity(number)), taken=True)]
    return answer


LOOKS = {
    "heads": lambda inbox, worker: inbox.heads("peer"),
    "a refused push": lambda inbox, worker: inbox.accept([arrival(2)]),
    "a refused push of several": lambda inbox, worker: inbox.accept_together([arrival(2)]),
    "a claim": lambda inbox, worker: inbox.claim(["orders"], 10, worker),
    "a list": lambda inbox, worker: inbox.scan(Selection()),
    "a look at the next": lambda inbox, worker: inbox.peek("orders", State.READY),
    "receipts": lambda inbox, worker: inbox.outcomes("peer", None, 0, 10) and inbox.flush(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_may_be_told_to_others_is_synced_first(storage, other, worker, synced, monkeypatch, look):
    """A head, the number of a message, a receipt: a power cut takes nothing of it back."""
    monkeypatch.setattr(writers, "NAP", 0.0)
    assert early(storage, 2, lambda: (LOOKS[look](other.inbox, worker), list(synced))[1]) == [INBOX]


def test_a_consumer_has_in_hand_what_its_server_waits_for(storage, other, worker, synced):
    """Its claim costs no sync; what it acknowledges and flushes takes the message's arrival with it."""
    claims = early(storage, 2, lambda: (other.inbox.claim_at_once(["orders"], 10, worker), list(synced)))
    assert ([claim.id for claim in claims[0]], claims[1]) == ([identity(2)], [])
    assert synced == [INBOX]


def test_a_server_whose_disk_fails_promises_nothing_though_it_was_seen(storage, other, worker, monkeypatch):
    """The peer hears of trouble, and of no head before a test of the disk went through."""
    monkeypatch.setattr(writers, "NAP", 0.0)

    def fail(_fd):
        raise OSError(errno.EIO, "Input/output error")

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(WriteFailed):
            storage.inbox.accept_telling([arrival(2)], told.append)
        with pytest.raises(StoreError):
            other.inbox.heads("peer")
    assert len(told) == 1
    assert storage.inbox.heads("peer") == {SOURCE: Head(2, identity(2))}


def test_without_room_for_the_counts_nobody_sees_anything_early(storage, synced, monkeypatch):
    """A disk too full for one page more: what is told is on stable storage."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    storage.inbox.engine._drop_writers()
    early(storage, 2, lambda: None)
    storage.outbox.engine._drop_writers()
    storage.outbox.append_telling([message()], lambda: None)
    assert synced == []


@pytest.fixture
def rival(storage):
    """A consumer of the process in which messages arrive."""
    return storage.inbox.register()


def writes(storage, claim):
    """What a claim brought, and whether it was a transaction that may write."""
    before = storage.inbox.engine.commits
    return len(claim()), storage.inbox.engine.commits > before


def test_an_empty_queue_is_looked_at_without_a_write_and_what_arrived_is_claimed_without_a_look(
    storage, other, worker, monkeypatch
):
    """Who was woken by an arrival does not ask first whether there is one."""
    engine, looks = other.inbox.engine, []
    look = engine.look
    monkeypatch.setattr(engine, "look", lambda *asked: (looks.append(asked), look(*asked))[1])
    for number in (2, 3):
        storage.inbox.accept_telling([arrival(number)], lambda _: None)
        assert writes(other, lambda: other.inbox.claim_at_once(["orders"], 1, worker)) == (1, True)
        assert not looks
        for _ in range(2):
            assert writes(other, lambda: other.inbox.claim_at_once(["orders"], 1, worker)) == (0, False)
        assert len(looks) == 2
        looks.clear()


def test_of_many_who_are_woken_for_one_message_the_late_ones_look_first(storage, other, worker, rival):
    """After one write in vain, for some claims; what is there is found all the same."""
    in_vain = 0
    for number in range(2, 2 + 2 * lease.LOOKS):
        storage.inbox.accept_telling([arrival(number)], lambda _: None)
        assert len(storage.inbox.claim_at_once(["orders"], 1, rival)) == 1
        found, wrote = writes(other, lambda: other.inbox.claim_at_once(["orders"], 1, worker))
        assert not found
        in_vain += wrote
    assert in_vain == 2
    storage.inbox.accept_telling([arrival(number + 1)], lambda _: None)
    assert len(other.inbox.claim_at_once(["orders"], 1, worker)) == 1
