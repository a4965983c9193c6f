"""Faults of a store by itself that no other test holds: a store of SQLite, opened as it stands, and copies of it."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from support.nodes import eventually

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Job, NewMessage, Selection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, IdMaker, SourceLane, StoreId
from dropr_core.system.clock import FakeClock

DAY = 86400.0
make = IdMaker()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opener(tmp_path, clock):
    """Opens the store in the test's directory; closes what it opened."""
    opened = []

    def open_store(directory=tmp_path, **context):
        fields = {"node": "ware", "data": directory, "clock": clock, "log": logging.getLogger("t"), "min_free": 0}
        opened.append(dropr_storage(Options(reserve=0), Context(**fields | context)))
        return opened[-1]

    yield open_store
    for storage in opened:
        storage.close()


def test_fault_65_a_handler_may_run_for_hours_and_is_seen_to(opener, clock):
    """A lease has no deadline: it lives with its process, nobody else gets the message, and a list shows its age."""
    storage = opener()
    storage.inbox.put("jobs", 5, "ware", [Job(make(), b"slow")])
    (claim,) = storage.inbox.claim(["jobs"], 1, storage.inbox.register("worker 7.0"))
    other = storage.inbox.register("other")
    for _ in range(12):
        clock.advance(1800.0)
        storage.inbox.sweep()
        assert storage.inbox.reap({}) == ([], True)
        assert storage.inbox.claim(["jobs"], 1, other) == []
    (shown,) = storage.inbox.scan(Selection(states=frozenset({State.LEASED}), older_than=5 * 3600.0))
    assert shown.id == claim.id
    assert shown.age == 6 * 3600.0
    assert "worker_7.0" in shown.consumer
    assert storage.inbox.settle([Ack(claim)]) == [True]


def test_fault_74_outcomes_for_a_sender_that_is_gone_are_forgotten_after_their_time(opener, clock, tmp_path):
    """Nobody fetches them any more: they are kept for `remember`, then they go, and cost nothing."""
    storage = opener(remember=30 * DAY)
    source, ids = SourceLane("gone", StoreId(b"storeid!"), "jobs", 5), [make() for _ in range(50)]
    jobs = [Job(one, b"x", number, None, True) for number, one in enumerate(ids, 1)]
    storage.inbox.accept([Arrival(source, START, Head(50, ids[-1]), jobs)])
    storage.inbox.settle([Ack(claim) for claim in storage.inbox.claim(["jobs"], 50, storage.inbox.register())])
    clock.advance(29 * DAY)
    storage.inbox.sweep()
    with contextlib.closing(apsw.Connection(str(tmp_path / "inbox.db"))) as look:
        assert look.execute("SELECT count(*) FROM outcome").fetchone() == (50,)
        clock.advance(2 * DAY)
        storage.inbox.sweep()
        assert look.execute("SELECT count(*) FROM outcome").fetchone() == (0,)
    assert storage.inbox.outcomes("gone", None, 0, 100)[1] == []


def test_fault_80_a_backup_of_a_store_in_use_is_a_moment_of_it(opener, tmp_path):
    """SQLite's backup while batches are sent: whole batches, all that were promised before, none half."""
    storage, stop, promised = opener(), threading.Event(), [0]

    def send():
        while not stop.is_set():
            storage.outbox.append([NewMessage(make(), "jobs", 5, ("peer",), b"x" * 500) for _ in range(7)])
            promised[0] += 7

    sender = threading.Thread(target=send)
    sender.start()
    copies = tmp_path / "copies"
    try:
        for number in range(3):
            eventually(lambda number=number: promised[0] > number * 70)
            copy = copies / str(number)
            copy.mkdir(parents=True)
            floor = promised[0]
            for half in ("outbox", "inbox"):
                backup = f".backup {copy / half}.db"
                subprocess.run([sys.executable, "-m", "apsw", str(tmp_path / f"{half}.db"), backup], check=True)
            shutil.copy(tmp_path / "store.json", copy)
            depth = opener(copy).outbox.lanes()[0].depth
            assert depth >= floor
            assert depth % 7 == 0
    finally:
        stop.set()
        sender.join()


def test_fault_80_a_plain_copy_that_is_not_whole_is_refused_by_name(opener, tmp_path):
    """One file of two was copied, or it was torn: the store that opens it says which file, and makes nothing anew."""
    storage = opener()
    for _ in range(50):
        storage.outbox.append([NewMessage(make(), "jobs", 5, ("peer",), os.urandom(5000))])
    storage.close()
    half, torn = tmp_path / "half", tmp_path / "torn"
    for copy in (half, torn):
        copy.mkdir()
        for name in ("outbox.db", "inbox.db", "store.json"):
            shutil.copy(tmp_path / name, copy)
    (half / "inbox.db").unlink()
    with pytest.raises(StoreError, match=r"inbox\.db"):
        opener(half)
    size = (torn / "outbox.db").stat().st_size
    os.truncate(torn / "outbox.db", size // 2)
    with pytest.raises(StoreError, match=r"outbox\.db"):
        opener(torn).outbox.append([NewMessage(make(), "jobs", 5, ("peer",), b"x" * 100_000)])
    assert not (half / "inbox.db").exists()


@pytest.mark.parametrize(("kind", "says"), [("nfs4", "network file system"), ("cifs", "network file system"),
                                            ("tmpfs", "nothing survives a reboot"), ("ext4", "")])  # fmt: skip
def test_fault_87_a_store_where_promises_cannot_be_kept_says_so_at_the_start(
    opener, monkeypatch, caplog, tmp_path, kind, says
):
    """On a network file system or in memory: a warning with the directory, and an event for observers."""
    told = []
    monkeypatch.setattr("dropr_core.storage_kit.opening.file_system", lambda _directory: kind)
    opener(event=lambda name, details: told.append((name, details["store"])))
    assert says in caplog.text
    assert bool(told) == bool(says)
    if says:
        assert str(tmp_path) in caplog.text
        assert kind in caplog.text
