"""What the storage does when the disk, the files or their versions are not what they should be."""

import json
import logging
import os
import shutil
import stat
import types

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite import storage as storage_module
from dropr_storage_sqlite.outbox import sql

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Job, NewMessage
from dropr_core.errors import (
    QueueFull,
    StoreCorrupt,
    StoreGone,
    StoreReadOnly,
    StoreTooNew,
    WriteFailed,
)
from dropr_core.model.names import IdMaker, Lane
from dropr_core.system.clock import FakeClock

make = IdMaker()


@pytest.fixture
def events():
    return []


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opener(tmp_path, clock, events):
    opened = []

    def open_store(options=None, **more):
        values = {
            "node": "n", "data": tmp_path, "clock": clock, "log": logging.getLogger("t"), "min_free": 0,
            "event": lambda name, details: events.append(name),
        }  # fmt: skip
        opened.append(dropr_storage(options or Options(reserve=0), Context(**values | more)))
        return opened[-1]

    yield open_store
    for storage in opened:
        storage.close()


def message(size=1):
    return NewMessage(make(), "orders", 5, ("peer",), b"x" * size)


def test_every_connection_is_as_it_should_be(opener, tmp_path):
    """WAL everywhere, FULL for what is promised, NORMAL for what may be repeated, no memory mapping."""
    storage = opener()
    storage.outbox.append([message()])
    storage.outbox.take(Lane("peer", "orders", 5), 1, 1)
    writers = storage.outbox.engine._writers
    assert {key: one.pragma("synchronous") for key, one in writers.items()} == {2: 2, 1: 1}
    storage.outbox.lanes()
    for one in (*writers.values(), storage.outbox.engine._reader[0]):
        assert one.pragma("journal_mode") == "wal"
        assert one.pragma("mmap_size") in {0, None}
    for name in ("outbox.db", "inbox.db", "outbox.db-wal", "store.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_fault_81_a_newer_store_is_refused_untouched(opener, tmp_path):
    """A file of a later version is refused with a clear text and not changed."""
    opener().close()
    connection = apsw.Connection(str(tmp_path / "inbox.db"))
    connection.execute("pragma user_version=99")
    connection.close()
    before = (tmp_path / "inbox.db").read_bytes()
    with pytest.raises(StoreTooNew, match="99"):
        opener()
    assert (tmp_path / "inbox.db").read_bytes() == before


def test_an_old_file_is_migrated_step_by_step(opener, tmp_path, monkeypatch):
    """A file of version 1 becomes one of the present version, with its deliveries, places and counts kept."""
    with monkeypatch.context() as patch:
        patch.setattr(storage_module, "OUTBOX", storage_module.Schema("outbox", storage_module.OUTBOX.steps[:1]))
        opener().close()  # makes the files of version 1
    old = apsw.Connection(str(tmp_path / "outbox.db"))
    assert old.pragma("user_version") == 1
    first = sql.origin(1)
    old.execute("INSERT INTO lane(peer, channel, priority, last, depth, bytes, sent) VALUES('b', 'c', 5, 3, 2, 20, 9)")
    for sequence in (2, 3):
        row = (first + sequence, bytes([sequence]) * 16, 1.0, 0, 10, None, None, None, None, b"0123456789")
        old.execute("INSERT INTO delivery VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    old.close()
    for _ in range(2):
        storage = opener()
        (stats,) = storage.outbox.lanes()
        assert (stats.last, stats.depth, stats.bytes) == (3, 2, 20)
        batch = storage.outbox.take(stats.lane, 10, 10_000)
        assert batch is not None
        assert [(entry.sequence, entry.id, entry.envelope) for entry in batch.entries] == [
            (2, bytes([2]) * 16, b"0123456789"),
            (3, bytes([3]) * 16, b"0123456789"),
        ]
        storage.close()
    storage = opener()
    fresh = NewMessage(make(), "c", 5, ("b",), b"x")
    assert storage.outbox.append([fresh])[0].sequences == (4,)
    assert storage.outbox.counts()["b", "c"] == {"sent": 10, "queued": 3}
    storage.close()
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    assert connection.pragma("user_version") == len(storage_module.OUTBOX.steps)
    connection.close()


def test_a_file_of_another_program_is_refused(opener, tmp_path):
    """An SQLite file that is not ours is named, not overwritten."""
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    connection.execute("pragma application_id=77; create table theirs(x)")
    connection.close()
    with pytest.raises(StoreCorrupt, match="another program"):
        opener()


def test_fault_52_garbage_is_refused_not_replaced(opener, tmp_path):
    """A file that is no database is damage; it is left as evidence."""
    opener().close()
    (tmp_path / "outbox.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreCorrupt):
        opener()
    assert (tmp_path / "outbox.db").read_bytes().startswith(b"garbage")


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_fault_12_a_store_that_vanishes_while_open(how, opener, tmp_path):
    """A deleted or exchanged file is noticed at the next send, and never made anew in silence."""
    storage = opener()
    storage.outbox.append([message()])
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    if how == "replaced":
        shutil.copy(tmp_path / "old-outbox.db", tmp_path / "outbox.db")
    with pytest.raises(StoreGone):
        storage.outbox.append([message()])
    if how == "removed":
        assert not (tmp_path / "outbox.db").exists()


def test_fault_12_a_missing_file_is_not_made_anew(opener, tmp_path):
    """A file that the marker knows and the directory has not is gone, not new."""
    opener().close()
    (tmp_path / "inbox.db").unlink()
    with pytest.raises(StoreGone, match=r"inbox\.db"):
        opener()
    assert not (tmp_path / "inbox.db").exists()


def test_a_marker_of_another_store_is_noticed(opener, tmp_path):
    """Files and marker must belong together."""
    opener().close()
    marker = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps(marker | {"outbox": "00" * 8}))
    with pytest.raises(StoreGone, match="another store"):
        opener()


def test_fault_09_under_the_floor_send_raises(opener, monkeypatch, clock):
    """Less free space than the floor: QueueFull; with room again it goes on without a restart."""
    storage = opener(min_free=1000)
    free = {"f_bavail": 10, "f_frsize": 1, "f_blocks": 10**6}
    monkeypatch.setattr(os, "statvfs", lambda path: types.SimpleNamespace(**free))
    with pytest.raises(QueueFull, match="1000"):
        storage.outbox.append([message()])
    free["f_bavail"] = 2000
    clock.advance(1)
    storage.outbox.append([message()])


def test_fault_09_a_full_disk_takes_nothing_half(opener, events):
    """SQLite has no page left: QueueFull, nothing half stored, earlier messages safe."""
    storage = opener()
    storage.outbox.append([message()])
    storage.outbox.append([message()])
    for writer in storage.outbox.engine._writers.values():
        writer.pragma("max_page_count", writer.pragma("page_count"))
    with pytest.raises(QueueFull, match="full"):
        storage.outbox.append([message(20000) for _ in range(10)])
    assert storage.outbox.lanes()[0].depth == 2
    assert "full" in events
    for writer in storage.outbox.engine._writers.values():
        writer.pragma("max_page_count", 10**6)
    storage.outbox.append([message(20000)])
    assert storage.outbox.lanes()[0].depth == 3


def test_fault_10_the_reserve_is_given_up_for_an_ack(opener, tmp_path, events):
    """The reserve is there from the opening on; an acknowledgement on a full disk costs it and succeeds."""
    storage = opener(Options(reserve=65536))
    storage.inbox.put("orders", 5, "n", [Job(make(), b"x")])
    assert (tmp_path / "inbox.reserve").stat().st_size == 65536
    claim = storage.inbox.claim(["orders"], 1, storage.inbox.register())[0]
    db, reserve = storage.inbox.engine, tmp_path / "inbox.reserve"
    transact = db._transact

    def full_while_reserved(synchronous, job):
        if reserve.exists():
            raise QueueFull("the disk is full") from apsw.FullError("planted")
        return transact(synchronous, job)

    db._transact = full_while_reserved
    assert storage.inbox.settle([Ack(claim)]) == [True]
    assert not reserve.exists()
    assert "full" in events


def fail_commits(db, times):
    """The next commits of a database end as an fsync error would."""
    connect, left = db._connect, [times]

    class Failing:
        def __init__(self, real):
            self._real, self._writes = real, False

        def __getattr__(self, name):
            return getattr(self._real, name)

        def cursor(self):
            return self

        def execute(self, text, *values):
            self._writes = text == "BEGIN IMMEDIATE" or (self._writes and text != "BEGIN")
            if text == "COMMIT" and self._writes and left[0] > 0:
                left[0] -= 1
                raise apsw.IOError("planted: fsync")
            return self._real.execute(text, *values)

    db._drop_writers()
    db._connect = lambda synchronous: Failing(connect(synchronous))


def test_fault_08_after_an_fsync_error_the_file_is_checked(opener, events):
    """One failed fsync: the send raises, the connections are opened anew, a test commit, then on."""
    storage = opener()
    storage.outbox.append([message()])
    fail_commits(storage.outbox.engine, 1)
    with pytest.raises(WriteFailed):
        storage.outbox.append([message()])
    assert storage.outbox.engine._writers == {}
    storage.outbox.append([message()])
    assert storage.outbox.lanes()[0].depth == 2
    assert events == ["write_failed", "trusted"]


def test_fault_08_two_failures_make_it_read_only_until_a_test_passes(opener, clock, events):
    """Two failures within a minute: StoreReadOnly, reading still works; it recovers by itself."""
    storage = opener()
    storage.outbox.append([message()])
    fail_commits(storage.outbox.engine, 3)
    with pytest.raises(WriteFailed):
        storage.outbox.append([message()])
    for _ in range(3):
        with pytest.raises(StoreReadOnly):
            storage.outbox.append([message()])
    assert storage.outbox.lanes()[0].depth == 1
    assert "read_only" in events
    for _ in range(3):
        clock.advance(2)
        try:
            storage.outbox.append([message()])
            break
        except StoreReadOnly:
            continue
    assert storage.outbox.lanes()[0].depth == 2


def test_fault_11_opened_to_look(opener, tmp_path):
    """A store opened only to look shows everything and refuses to change anything."""
    opener().outbox.append([message()])
    look = opener(read_only=True)
    assert look.outbox.lanes()[0].depth == 1
    with pytest.raises(StoreReadOnly, match="to look"):
        look.outbox.append([message()])


def test_looking_at_no_store_makes_none(opener, tmp_path):
    """Opening to look where there is no store says so and leaves nothing behind."""
    with pytest.raises(StoreGone):
        opener(read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_acknowledgements_are_flushed_soon(opener):
    """What was settled without a flush gets one from the flusher, which then sleeps."""
    storage = opener(Options(flush=0.001, reserve=0))
    storage.inbox.put("orders", 5, "n", [Job(make(), b"x")])
    claim = storage.inbox.claim(["orders"], 1, storage.inbox.register())[0]
    flusher = storage.inbox.engine.flusher
    storage.inbox.settle([Ack(claim)])
    flusher._thread.join(0)
    for _ in range(2000):
        if not flusher.dirty:
            break
        flusher._thread.join(0.005)
    assert not flusher.dirty
