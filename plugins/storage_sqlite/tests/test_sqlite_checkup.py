"""Damage of each kind in a real SQLite store: found, named, repaired, and nothing else lost."""

import logging
import shutil

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.outbox import sql

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Job, NewMessage, Selection
from dropr_core.errors import Held
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, IdMaker, Lane, SourceLane, StoreId
from dropr_core.system.clock import FakeClock

make = IdMaker()
LANE = Lane("peer", "orders", 5)


class Store:
    """A store on disk that is opened, damaged and checked."""

    def __init__(self, directory):
        self.directory, self.clock, self.opened = directory, FakeClock(), []

    def context(self, **more):
        values = {"node": "n", "data": self.directory, "clock": self.clock, "log": logging.getLogger("t")}
        return Context(**values, min_free=0, **more)

    def open(self):
        self.opened.append(dropr_storage(Options(reserve=0), self.context()))
        return self.opened[-1]

    def close(self):
        for storage in self.opened:
            storage.close()

    def check(self, *, repair=False):
        context = self.context(checking=True, read_only=not repair)
        storage = dropr_storage(Options(), context)
        try:
            return list(storage.check(repair=repair))
        finally:
            storage.close()

    def damage(self, half, *statements):
        """Change the file behind the storage's back."""
        connection = apsw.Connection(str(self.directory / f"{half}.db"))
        for statement in statements:
            connection.execute(statement).fetchall()
            assert connection.changes(), statement
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()

    def mends(self, *words):
        """Found without a repair, which changes nothing; repaired; and nothing is left after it."""
        before = self.bytes()
        found = self.check()
        assert found, "nothing was found"
        assert self.bytes() == before, "a look changed the store"
        text = "\n".join(f"{one.half} {one.what} {one.text} {one.remedy}" for one in found)
        for word in words:
            assert word in text, text
        assert not any(one.repaired for one in found)
        repaired = [one for one in self.check(repair=True) if one.severity != "note"]
        assert repaired
        assert all(one.repaired for one in repaired), repaired
        assert [one for one in self.check() if one.severity != "note"] == []

    def bytes(self):
        return {path.name: path.read_bytes() for path in self.directory.glob("*.db")}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.close()


def message(peers=("peer",), size=100, **more):
    return NewMessage(make(), "orders", 5, peers, b"x" * size, **more)


def job(size=100, **more):
    return Job(make(), b"y" * size, **more)


@pytest.fixture
def full(store):
    """A store with something in every table: closed again."""
    storage = store.open()
    outbox, inbox = storage.outbox, storage.inbox
    outbox.append([message() for _ in range(20)] + [message(("peer", "other")) for _ in range(5)])
    outbox.append([message(receipt=True), message(expires_in=900.0)])
    batch = outbox.take(LANE, 3, 10**6)
    outbox.settle(LANE, batch.upto)
    outbox.dead_letter(LANE, 5, "test")
    outbox.append([message() for _ in range(3)])
    inbox.put("jobs", 5, "somebody", [job(receipt=True) for _ in range(10)])
    inbox.put("jobs", 5, "somebody", [job(key="k"), job(key="k"), job(due_in=99.0)])
    inbox.put("jobs", 5, "somebody", [job(expires_in=99.0), job(receipt=True), job(rank=70_000)])
    first, second, *_ = inbox.claim(["jobs"], 4, inbox.register())
    inbox.settle([Ack(first, b"r"), Ack(second, keep=99.0)])
    inbox.bury(inbox.scan(Selection(states=frozenset({State.READY})))[0].id, "test")
    for lock in inbox.consumers._locks.values():  # as if the process had died: its leases stay
        lock.release()
    inbox.consumers._locks.clear()
    storage.close()
    return store


def everything(storage):
    """Ids and states of all that a store holds."""
    sent = {(one.id, one.peer): one.state for _, one in storage.outbox.scan(Selection(), limit=10**6)}
    return sent, {one.id: one.state for one in storage.inbox.scan(Selection(), limit=10**6)}


def test_a_sound_store_has_no_findings(full):
    """Nothing is found where nothing is wrong, with lanes that lag behind their last appends too."""
    assert full.check() == []
    before = everything(full.open())
    full.close()
    assert full.check(repair=True) == []
    assert everything(full.open()) == before


def test_a_look_works_beside_those_who_work(store):
    """Without a repair the store may be in use, and what was appended lately is seen."""
    storage = store.open()
    storage.outbox.append([message() for _ in range(3)])
    assert store.check() == []
    with pytest.raises(Held, match="open in another process"):
        store.check(repair=True)
    storage.outbox.append([message()])


WRONG = [
    ("outbox", "UPDATE lane SET depth = depth + 1 WHERE lane = 1", "deliveries"),
    ("outbox", "UPDATE lane SET awaiting = awaiting + 1, bytes = bytes + 7 WHERE lane = 1", "receipt"),
    ("outbox", "UPDATE tally SET n = n + 2", "counted where"),
    ("outbox", "UPDATE shared SET refs = refs + 1 WHERE n = 2", "several peers"),
    ("outbox", "UPDATE lane SET head = 99, last = 50 WHERE lane = 1", "up to number 99"),
    ("outbox", "UPDATE ended SET state = 'odd'", "does not exist"),
    ("outbox", "DELETE FROM meta WHERE key = 'store'", "'store' is lost"),
    ("inbox", "UPDATE queue SET ready = ready + 1", "ready where"),
    ("inbox", "UPDATE queue SET leased = 0, bytes = 1", "bytes where"),
    ("inbox", "UPDATE meta SET value = 1 WHERE key = 'last'", "noted as given"),
    ("inbox", "UPDATE lease SET consumer = 99", "nobody knows"),
    ("inbox", "UPDATE consumer SET leases = 77", "77 leases"),
    ("inbox", "DELETE FROM lease", "passed over"),
    ("inbox", "DELETE FROM delayed", "passed over"),
    ("inbox", "DELETE FROM expiry", "would not expire"),
    ("inbox", "DELETE FROM holder", "held by no message"),
    ("inbox", "UPDATE holder SET place = place + 1000", "gone or ended"),
    ("inbox", "DELETE FROM sender", "name is lost"),
    ("inbox", "UPDATE sender SET last = 0", "goes on behind"),
    ("inbox", "UPDATE queue SET frontier = 0", "once as new"),
    ("inbox", "INSERT INTO ranked VALUES(77, 3)", "not there"),
    ("inbox", "UPDATE ready SET rank = 7", "another rank"),
    ("inbox", "INSERT INTO ready SELECT place, 1, '', NULL FROM lease", "at once"),
]


@pytest.mark.parametrize(("half", "statement", "word"), WRONG, ids=[row[1][:45] for row in WRONG])
def test_fault_52_what_contradicts_the_messages_is_made_anew(full, half, statement, word):
    """Each counter, number and state that is wrong is found, named and repaired; no message goes."""
    before = everything(full.open())
    full.close()
    full.damage(half, statement)
    full.mends(word)
    after = everything(full.open())
    assert [set(one) for one in after] == [set(one) for one in before]


def test_a_lease_without_its_message_goes(full):
    """A message row that vanished, its lease left: named by its number, removed, the others are given out."""
    full.damage("inbox", "DELETE FROM message WHERE place IN (SELECT place FROM lease LIMIT 1)")
    full.mends("lease", "without a message")
    inbox = full.open().inbox
    inbox.reap({})
    before = inbox.counts()["jobs"]["ready"]
    assert len(inbox.claim(["jobs"], 100, inbox.register())) == before


def test_a_date_without_its_message_does_not_stop_the_sweep(full):
    """What may expire and is gone is forgotten, and the sweep goes on."""
    full.damage("inbox", "DELETE FROM message WHERE place IN (SELECT place FROM expiry LIMIT 1)")
    full.mends("expiry")
    full.clock.advance(500.0)
    full.open().inbox.sweep()


def test_a_lost_lane_and_a_lost_queue_keep_their_messages(full):
    """Deliveries to nobody knows whom are dead letters that can be read; a queue takes its messages' channel."""
    full.damage("outbox", "DELETE FROM lane WHERE peer = 'other'")
    full.damage("inbox", "DELETE FROM queue")
    full.mends("to which peer", "to which channel")
    storage = full.open()
    dead = [one for _, one in storage.outbox.scan(Selection(peer="lost"))]
    assert len(dead) == 5
    assert all(one.state is State.DEAD and storage.outbox.envelope(one.id) for one in dead)
    assert storage.inbox.claim(["jobs"], 1, storage.inbox.register())


def test_a_lost_content_costs_its_deliveries_only(full):
    """A multicast whose bytes are gone is dead; what stands behind it in its lanes is shipped."""
    full.damage("outbox", "DELETE FROM shared WHERE n = 2")
    full.mends("content of 1 queued delivery is missing")
    outbox = full.open().outbox
    assert len([one for _, one in outbox.scan(Selection(states=frozenset({State.DEAD})))]) == 3
    for peer in ("peer", "other"):
        lane = Lane(peer, "orders", 5)
        batch = outbox.take(lane, 1000, 10**9)
        outbox.settle(lane, batch.upto)
        assert outbox.take(lane, 1, 1) is None
    assert full.directory.joinpath("aside").exists() is False


def test_a_content_that_nobody_needs_is_moved_aside(full):
    """Bytes without an owner are kept in a file, whole."""
    full.damage("outbox", "INSERT INTO shared(refs, envelope) VALUES(1, x'616263')")
    full.mends("no delivery needs")
    assert [path.read_bytes() for path in (full.directory / "aside").iterdir()] == [b"abc"]


def test_an_index_that_disagrees_is_made_anew(full):
    """A damaged index is told apart from damaged messages: it is built again from them."""
    connection = apsw.Connection(str(full.directory / "inbox.db"))
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX message_id ON message(sender)' "
                       "WHERE name = 'message_id'")  # fmt: skip
    connection.close()
    connection = apsw.Connection(str(full.directory / "inbox.db"))
    connection.execute("REINDEX message_id")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX message_id ON message(id)' "
                       "WHERE name = 'message_id'")  # fmt: skip
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    full.mends("index")


# ── damaged pages ────────────────────────────────────────────────────────────────────────────────


def hurt_pages(path, table, *, count=1):
    """Overwrite leaf pages in the middle of a table."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    size = connection.pragma("page_size")
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchall()[0][0]
    connection.close()
    data = bytearray(path.read_bytes())
    leaves = []

    def walk(page):
        start = (page - 1) * size
        kind, cells = data[start], int.from_bytes(data[start + 3 : start + 5], "big")
        if kind == 13:
            leaves.append(page)
        if kind == 5:
            for index in range(cells):
                at = start + int.from_bytes(data[start + 12 + 2 * index : start + 14 + 2 * index], "big")
                walk(int.from_bytes(data[at : at + 4], "big"))
            walk(int.from_bytes(data[start + 8 : start + 12], "big"))

    walk(root)
    assert len(leaves) > 4 * count
    for page in leaves[len(leaves) // 2 :][:count]:
        data[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(data)


@pytest.fixture
def long(store):
    """A store with some hundred messages in each half."""
    storage = store.open()
    for _ in range(10):
        storage.outbox.append([message(size=300) for _ in range(50)])
        storage.inbox.put("jobs", 5, "somebody", [job(300) for _ in range(50)])
    storage.close()
    return store


@pytest.mark.parametrize(("half", "table"), [("outbox", "delivery"), ("inbox", "message")])
def test_fault_51_a_damaged_page_costs_what_stood_on_it(long, half, table):
    """All other messages are in the fresh file, the damaged one keeps every byte, and the node goes on."""
    path = long.directory / f"{half}.db"
    before = everything(long.open())
    long.close()
    hurt_pages(path, table)
    damaged = path.read_bytes()
    long.mends("damaged", "fresh file")
    aside = [one for one in long.directory.glob(f"{half}.db.damaged-*") if not one.name.endswith(("-wal", "-shm"))]
    assert [one.read_bytes() for one in aside] == [damaged]
    storage = long.open()
    after = everything(storage)
    for old, new in zip(before, after, strict=True):
        assert set(new) <= set(old)
        assert len(new) >= len(old) - 20
    storage.outbox.append([message()])
    batch = storage.outbox.take(LANE, 10**6, 10**9)
    assert len(batch.entries) == len(after[0]) + 1
    storage.inbox.put("jobs", 5, "somebody", [job()])
    assert len(storage.inbox.claim(["jobs"], 10**6, storage.inbox.register())) == len(after[1]) + 1


def test_after_a_loss_the_outbox_has_a_new_identity(long):
    """Numbers that stood on a damaged page are not given twice: peers meet a new store id."""
    before = long.open().outbox.store_id
    long.close()
    hurt_pages(long.directory / "outbox.db", "delivery")
    found = long.check(repair=True)
    assert any("new store id" in one.text for one in found)
    outbox = long.open().outbox
    assert outbox.store_id != before
    assert all(entry.possible_duplicate for entry in outbox.take(LANE, 100, 10**9).entries)


def test_after_a_loss_the_inbox_asks_its_senders_again(long):
    """No head is kept, so each sender goes back to the beginning and sends what it still keeps; once only."""
    source, kept = SourceLane("s", StoreId(b"12345678"), "jobs", 5), job(300)
    inbox = long.open().inbox
    inbox.accept([Arrival(source, START, Head(1, kept.id), [kept])])
    long.close()
    hurt_pages(long.directory / "inbox.db", "message")
    long.mends("damaged")
    inbox = long.open().inbox
    assert inbox.heads("s") == {}
    again = Arrival(source, START, Head(1, kept.id), [kept._replace(possible_duplicate=True)])
    before = inbox.counts()["jobs"]["ready"]
    assert inbox.accept([again])[0].taken
    assert inbox.counts()["jobs"]["ready"] == before, "it stood here already"


def test_what_is_no_database_at_all_is_left_alone(full):
    """A file of garbage: said, not replaced by an empty queue, and not a byte of it changes."""
    path = full.directory / "outbox.db"
    path.write_bytes(b"garbage " * 4096)
    for repair in (False, True):
        found = full.check(repair=repair)
        assert [(one.half, one.repaired) for one in found] == [("outbox", False)]
        assert "damaged" in found[0].text
    assert path.read_bytes() == b"garbage " * 4096


def test_a_missing_half_and_a_missing_marker_are_told(full):
    """A deleted file is named, and nothing is made anew."""
    (full.directory / "inbox.db").unlink()
    (found,) = full.check(repair=True)
    assert (found.half, found.severity, found.repaired) == ("inbox", "damage", False)
    assert not (full.directory / "inbox.db").exists()
    (full.directory / "store.json").write_text("{")
    assert any(one.what == "store.json" for one in full.check())


def test_a_repair_that_was_stopped_between_two_names_is_finished(full):
    """The fresh copy waits for its place: the next repair puts it there."""
    path = full.directory / "outbox.db"
    before = everything(full.open())
    full.close()
    shutil.move(path, full.directory / "outbox.db.fresh")
    full.mends("stopped")
    assert everything(full.open()) == before


def test_a_copy_is_checked_where_nothing_can_be_written(full):
    """A read-only directory is enough to look."""
    full.directory.chmod(0o500)
    try:
        assert full.check() == []
        assert not list(full.directory.glob("*-shm"))
    finally:
        full.directory.chmod(0o700)


def test_the_lag_of_a_lane_is_no_mistake_and_is_not_lost(store):
    """Only the last delivery tells of what was appended: a repair of counters keeps that."""
    storage = store.open()
    storage.outbox.append([message() for _ in range(4)])
    storage.close()
    store.damage("outbox", "UPDATE lane SET awaiting = 3")
    store.mends("receipt")
    outbox = store.open().outbox
    assert outbox.lanes()[0].depth == 4
    assert outbox.append([message()])[0].sequences == (5,)
    assert sql.MASK
