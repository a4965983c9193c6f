"""A disk in trouble: every call says so in dropr's words, nothing is lost or doubled; once it is healed all flows."""

import errno
import mmap
import os
from pathlib import Path

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import generations
from dropr_storage_fs.files import disk
from dropr_storage_fs.files import log as logs

from dropr_core.contracts.storage import Ack, Arrival, Job, Selection
from dropr_core.errors import DroprError, QueueFull
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, SourceLane, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import LANE, PEER, STORE, make_context, new_id, outgoing, send

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE)
CALLS = ("open", "pwrite", "fdatasync", "fsync", "ftruncate", "dup", "posix_fallocate", "mkdir", "pread", "fstat")
SOURCE = SourceLane("shop", STORE, "orders", 5)
LOG = StoreId(b"log----1")


@pytest.fixture
def opener(tmp_path, monkeypatch):
    """Opens the same store with segments and journals that are soon full; no thread flushes; closes all."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 3000)
    monkeypatch.setattr(logs, "AHEAD", 0)
    monkeypatch.setattr(generations, "JOURNAL_MIN", 3000)
    opened, clock = [], FakeClock()

    def make(reserve=0):
        opened.append(dropr_storage(Options(reserve=reserve, flush=3600.0), make_context(tmp_path, clock)))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


class Traffic:
    """Mail through both halves of one store; what was promised is remembered."""

    def __init__(self):
        self.sent, self.settled, self.came, self.done, self.receipts = [], set(), [], set(), 0
        self.head, self.cursor = START, 0

    def round(self, storage):
        """One of everything; the errors that calls raised."""
        errors = []
        for step in (self.send, self.ship, self.arrive, self.work, self.receive, self.look, self.care):
            try:
                step(storage)
            except DroprError as error:
                errors.append(error)
        return errors

    def send(self, storage):
        message = outgoing(b"x" * 300, receipt=True, fingerprint=b"print")
        storage.outbox.append([message])
        self.sent.append(message.id)
        both = outgoing(b"y" * 300, peers=(PEER, "other"))
        storage.outbox.append([both])
        self.sent.append(both.id)

    def ship(self, storage):
        batch = storage.outbox.take(LANE, 10, 1 << 20)
        if batch is not None:
            storage.outbox.settle(LANE, batch.upto)
            self.settled |= {entry.id for entry in batch.entries}

    def arrive(self, storage):
        jobs = [Job(new_id(), b"z" * 300, self.head.sequence + at, receipt=at == 1) for at in (1, 2)]
        upto = Head(jobs[-1].sequence, jobs[-1].id)
        assert storage.inbox.accept([Arrival(SOURCE, self.head, upto, jobs)])[0].taken
        self.head = upto
        self.came += [job.id for job in jobs]

    def work(self, storage):
        consumer = storage.inbox.register()
        try:
            claims = storage.inbox.claim([SOURCE.channel], 3, consumer)
            assert not self.done & {claim.id for claim in claims}, "done twice"
            assert all(storage.inbox.settle([Ack(claim) for claim in claims]))
            self.done |= {claim.id for claim in claims}
        finally:
            storage.inbox.retire(consumer)

    def receive(self, storage):
        waiting = sorted(self.settled)[:1]
        rows = [Outcome(self.cursor + 1, identity, State.PROCESSED) for identity in waiting]
        storage.outbox.receipts(PEER, LOG, rows, self.cursor + len(rows))
        self.cursor += len(rows)
        self.settled -= set(waiting)
        storage.inbox.outcomes(SOURCE.sender, storage.inbox.store_id, 0, 5)

    def look(self, storage):
        storage.outbox.lanes()
        storage.outbox.scan(Selection(), limit=5)
        storage.inbox.scan(Selection(), 0, 5)
        storage.inbox.counts()

    def care(self, storage):
        storage.outbox.sweep(1e9)
        storage.inbox.sweep()
        storage.inbox.flush()

    def check(self, storage):
        """Everything that was promised is there, and what was done stays done."""
        known = {delivery.id for _, delivery in storage.outbox.scan(Selection(), limit=10_000)}
        assert known >= set(self.sent), "a sent message is unknown"
        there = [info.id for info in storage.inbox.scan(Selection(), 0, 10_000)]
        assert len(there) == len(set(there)), "a message stands twice in the queue"
        assert set(there) >= set(self.came) - self.done, "an accepted message is gone"
        assert not set(there) & self.done, "an acknowledged message came back"


def failing(patch, name, number, every):
    """Each so-many-th call of the system fails."""
    real, count = getattr(os, name), 0

    def call(*values, **more):
        nonlocal count
        count += 1
        if count % every == 0:
            raise OSError(number, os.strerror(number))
        return real(*values, **more)

    patch.setattr(os, name, call)


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", CALLS)
def test_whatever_call_fails_the_errors_are_ours_and_all_flows_again(opener, monkeypatch, name, number):
    """Now and then, often, and always; in two processes; then the disk is healed, and both go on as if nothing was."""
    storage, other, traffic = opener(), opener(), Traffic()
    assert traffic.round(storage) == traffic.round(other) == []
    for every in (7, 3, 2, 1):
        with monkeypatch.context() as patch:
            failing(patch, name, number, every)
            for half in (storage, other, storage):
                traffic.round(half)
        for half in (other, storage):
            errors = traffic.round(half)
            assert errors == [], f"after every {every}th {name} had failed: {errors}"
        traffic.check(storage)
        traffic.check(other)
    storage.close()
    other.close()
    traffic.check(opener())


# ── the reserve ──────────────────────────────────────────────────────────────────────────────────


def blocks(path):
    return path.stat().st_blocks * 512


def test_the_reserve_is_there_from_the_first_moment(opener, tmp_path):
    """Each half has it, with blocks of its own; without it where the user wants none."""
    opener().close()
    assert not list(tmp_path.glob("*.reserve"))
    opener(reserve=1 << 18)
    assert {path.name for path in tmp_path.glob("*.reserve")} == {"outbox.reserve", "inbox.reserve"}
    assert all(blocks(path) >= 1 << 18 for path in tmp_path.glob("*.reserve"))


def test_on_a_full_disk_the_reserve_is_for_what_makes_room(opener, tmp_path, monkeypatch):
    """No new message gets it; acknowledgements, receipts and wipes commit; when there is room it is made again."""
    storage = opener(reserve=1 << 18)
    outbox, inbox = storage.outbox, storage.inbox
    awaited, dead = send(outbox, 1, receipt=True), send(outbox, 1)
    outbox.dead_letter(LANE, 2, "test")
    outbox.settle(LANE, outbox.take(LANE, 1, 1 << 20).upto)
    jobs = [Job(new_id(), b"z", number) for number in (1, 2)]
    inbox.accept([Arrival(SOURCE, START, Head(2, jobs[1].id), jobs)])
    (claim, _) = inbox.claim([SOURCE.channel], 2, inbox.register())
    real = disk.write_at

    def full(fd, data, at):
        half = "inbox" if "/inbox/" in str(Path(f"/proc/self/fd/{fd}").readlink()) else "outbox"
        if (tmp_path / f"{half}.reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_at", full)
        with pytest.raises(QueueFull):
            send(outbox, 1)
        with pytest.raises(QueueFull):
            inbox.put("orders", 5, "me", [Job(new_id(), b"more")])
        with pytest.raises(QueueFull):
            outbox.redrive(Selection())
        assert len(list(tmp_path.glob("*.reserve"))) == 2, "a new message took the reserve"
        assert inbox.settle([Ack(claim)]) == [True]
        assert outbox.receipts(PEER, LOG, [Outcome(1, awaited[0], State.PROCESSED)], 1) == awaited
        assert outbox.wipe(Selection(ids=tuple(dead))) == 1
        assert not list(tmp_path.glob("*.reserve"))
    outbox.sweep(1e9)
    inbox.sweep()
    assert len(list(tmp_path.glob("*.reserve"))) == 2


# ── mapped memory ────────────────────────────────────────────────────────────────────────────────


def test_what_is_mapped_has_its_blocks(opener, tmp_path):
    """A page that the disk has no room for would end the process with SIGBUS: room is made before it is mapped."""
    storage = opener()
    for first in range(0, 120, 40):
        peers = tuple(f"peer{number}" for number in range(first, first + 40))
        storage.outbox.append([outgoing(b"x", peers=peers)])
        place = tmp_path / "outbox" / "shared"
        assert blocks(place) >= place.stat().st_size
        assert place.stat().st_size % mmap.PAGESIZE in range(mmap.PAGESIZE)


def test_no_room_to_map_is_an_error_of_ours(opener, monkeypatch):
    """Neither opening nor a lane beyond those that are mapped ends in anything but a clear error, and both go on."""
    with monkeypatch.context() as patch:
        failing(patch, "posix_fallocate", errno.ENOSPC, 1)
        with pytest.raises(QueueFull):
            opener()
    storage = opener()
    peers = tuple(f"peer{number}" for number in range(100))
    with monkeypatch.context() as patch:
        failing(patch, "posix_fallocate", errno.ENOSPC, 1)
        with pytest.raises(QueueFull):
            storage.outbox.append([outgoing(b"x", peers=peers)])
    assert storage.outbox.lanes() == []
    storage.outbox.append([outgoing(b"x", peers=peers)])
    assert len(storage.outbox.lanes()) == 100


def test_a_journal_that_cannot_be_rewritten_is_not_tried_at_every_call(opener, tmp_path, monkeypatch):
    """On a full disk a new generation fails: nothing of it stays, and the next try waits until there is a reason."""
    storage, tries, real = opener(), [], disk.put_file

    def full(path, data):
        if path.name.startswith("journal."):
            tries.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "put_file", full)
        for number in range(100):
            storage.outbox.hold("there", f"reason {number}" * 10)
    assert 1 <= len(tries) < 20
    storage.outbox.hold("there", "last")
    assert storage.outbox.peers()["there"].reason == "last"
    assert len(list(tmp_path.glob("outbox/journal.*"))) == 1
