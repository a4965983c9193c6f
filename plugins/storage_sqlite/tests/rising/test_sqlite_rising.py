"""Ids that are in no index: found by their order, whatever was done to what has them."""

import logging

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import rising, schema
from dropr_storage_sqlite.fsck import order
from dropr_storage_sqlite.fsck.findings import ContentCheck
from dropr_storage_sqlite.fsck.outbox import check_outbox
from dropr_storage_sqlite.outbox import append, ids, sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage, Selection
from dropr_core.model.message import State
from dropr_core.model.names import Head, IdMaker, Lane
from dropr_core.system.clock import FakeClock

SPACING, RISING = 4, 3


@pytest.fixture
def narrow(monkeypatch):
    """Milestones close to each other, and few lanes whose ids rise."""
    for module in (rising, order, append, ids):
        monkeypatch.setattr(module, "SPACING", SPACING, raising=False)
        monkeypatch.setattr(module, "RISING", RISING, raising=False)
    return monkeypatch


def context_of(directory, clock):
    return Context(node="n", data=directory, clock=clock, log=logging.getLogger("t"), min_free=0)


WALKED = (
    sql.BY_ORDER.replace(" AND id = ?1 AND flags & 93 = 0", " AND lane.lane <= 3 GROUP BY 1")
    .replace("place, id, flags, size, shared, born, due", "lane.lane, count(*)")
)  # fmt: skip
"""How many deliveries of each lane a look-up reads."""


class Sender:
    """An outbox to which everything is done that moves deliveries."""

    def __init__(self, directory):
        self.context = context_of(directory, FakeClock())
        self.storage = dropr_storage(Options(reserve=0), self.context)
        self.outbox, self.make, self.wall, self.used = self.storage.outbox, IdMaker(lambda: self.wall), 1e9, []

    def message(self, lane, **more):
        self.wall += 0.001
        identity = more.pop("id", None) or self.make()
        self.used.append(identity)
        return NewMessage(identity, f"c{lane}", 5, more.pop("peers", ("peer",)), b"x", **more)

    def several(self, lane, count, **more):
        return [self.message(lane, **more) for _ in range(count)]

    def sends(self, lane, count):
        for one in self.several(lane, count):
            self.outbox.append([one])

    def batch(self, lane, count):
        self.outbox.append(self.several(lane, 2 + count))

    def overtaken(self, lane, count):
        late, soon = self.several(lane, 2 + count), self.several(lane, 1 + count)
        self.outbox.append(soon)
        self.outbox.append(late)

    def overlapping(self, lane, count):
        some = self.several(lane, 6 + count)
        self.outbox.append(some[2:4])
        self.outbox.append(some[:2] + some[4:])

    def falling(self, lane, count):
        self.outbox.append(self.several(lane, 2 + count)[::-1])

    def twice(self, lane, count):
        one = self.message(lane)
        self.outbox.append([one] * (1 + count))

    def foreign(self, lane, count):
        for at in range(count):
            self.outbox.append([self.message(lane, id=bytes([at]) * 6 + b"\x40" + bytes([len(self.used) % 256]) * 9)])

    def receipts(self, lane, count):
        self.outbox.append(self.several(lane, 1 + count, receipt=True))

    def own(self, lane, count):
        for one in self.several(lane, count, fingerprint=b"f"):
            self.outbox.append([one])

    def to_two(self, lane, count):
        self.outbox.append(self.several(lane, count, peers=("peer", "other")))

    def settle(self, lane, count):
        batch = self.outbox.take(Lane("peer", f"c{lane}", 5), 1 + count * 3, 1 << 30)
        if batch is not None:
            self.outbox.settle(batch.lane, batch.upto)

    def cancel(self, _, count):
        for one in self.used[-3 - count : -count - 1]:
            self.outbox.cancel(one)

    def redrive(self, lane, count):
        for stats in self.outbox.lanes("peer"):
            if stats.lane.channel == f"c{lane}":
                for sequence in range(stats.head.sequence + 1, stats.head.sequence + 3 + count * 2):
                    self.outbox.dead_letter(stats.lane, sequence, "test")
        self.outbox.redrive(Selection(states=frozenset({State.DEAD})))

    def rewind(self, lane, count):
        for stats in self.outbox.lanes("peer"):
            if stats.lane.channel == f"c{lane}" and stats.head.sequence > count:
                self.outbox.rewind(stats.lane, Head(stats.head.sequence - count, b"h" * 16))

    def renumber(self, _, count):
        if count > 7:
            self.outbox.renumber()

    def check(self):
        """Each id leads to its deliveries."""
        found = check(self.outbox.engine.path, self.used, self.context)
        for one, places in found.items():
            assert [d.id for d in self.outbox.status(one) if not d.over] == [one] * len(places)


def check(path, used, context):
    """Each id leads to its rows and no others, and nobody walks far for it. The rows of each."""
    connection = apsw.Connection(str(path))
    rows = {one: [] for one in used}
    for place, identity in connection.execute("SELECT place, id FROM delivery ORDER BY place"):
        rows[bytes(identity)].append(place)
    for one, places in rows.items():
        assert sorted(row.place for row in ids.find_rows(connection, [one])) == places, one
        assert max((n for _, n in connection.execute(WALKED, (one,))), default=0) <= rising.SPACING
    checking = ContentCheck("outbox", connection, context, repair=False)
    check_outbox(checking)
    assert checking.findings == []
    connection.close()
    return rows


WAYS = ("sends", "batch", "overtaken", "overlapping", "falling", "twice", "foreign", "receipts", "own", "to_two",
        "settle", "cancel", "redrive", "rewind", "renumber")  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(1, RISING + 1), st.integers(0, 8)), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_delivery_is_found_by_its_id(narrow, tmp_path_factory, steps):
    """Whatever was sent, settled, ended, sent again or numbered anew, an id leads to just its deliveries."""
    sender = Sender(tmp_path_factory.mktemp("sender"))
    for lane in range(1, RISING + 2):  # numbered in this order
        sender.sends(lane, 1)
    for way, lane, count in steps:
        getattr(sender, way)(lane, count)
    sender.check()
    sender.storage.close()


def test_nobody_walks_over_what_was_sent_again(narrow, tmp_path):
    """Neither while it stands behind what rises, nor when its lane's head is in the middle of it."""
    sender = Sender(tmp_path)
    sender.sends(1, 6)
    sender.redrive(1, 2)
    sender.check()
    sender.redrive(1, 8)
    sender.check()
    for _ in range(6):
        sender.settle(1, 0)
        sender.check()
    sender.sends(1, 3)
    sender.check()
    sender.storage.close()


def test_a_wall_clock_that_stood_wrong_is_forgotten(narrow, tmp_path):
    """What comes after ids of the future is listed, until none of them waits any more: then it rises again."""
    sender = Sender(tmp_path)
    sender.wall += 1e6
    sender.sends(1, 6)
    sender.wall, sender.make = 1e9, IdMaker(lambda: sender.wall)
    sender.sends(1, 5)
    listed = f"SELECT count(*) FROM delivery WHERE flags & {sql.LISTED} <> 0"
    assert sender.outbox.engine.look(listed) == [(5,)]
    sender.check()
    sender.settle(1, 8)
    sender.sends(1, 5)
    assert sender.outbox.engine.look(listed) == [(0,)]
    sender.check()
    sender.storage.close()


def test_a_store_of_version_2_is_brought_to_the_order_of_its_ids(tmp_path):
    """What rises becomes unlisted, between milestones; the rest is listed, and all is found."""
    make, path, used, lists = IdMaker(), tmp_path / "outbox.db", [], list[object]()
    connection = apsw.Connection(str(path))
    for step in schema.OUTBOX.steps[:2]:
        connection.execute(step)
    for lane, count in ((1, 700), (2, 10), (rising.RISING + 1, 8)):
        some = [make() for _ in range(count)]
        some[5], some[7] = some[7], some[5]
        some[4] = bytes(6) + b"\x40" + bytes([lane % 256]) * 9
        head = 4 if lane == 1 else 0
        waits = 2 if head else 0  # for receipts
        values = (lane, f"c{lane}", head, head, waits, waits, head, head)
        connection.execute("INSERT INTO lane VALUES(?, 'peer', ?, 5, ?, ?, x'', 0, 0, 0, ?, ?, ?, ?)", values)
        for at, one in enumerate(some, 1):
            if at <= head and at not in {2, 4}:
                continue
            flags = sql.RECEIPT if at <= head or at % 9 == 0 else sql.DUPLICATE if at % 50 == 0 else 0
            values = (sql.origin(lane) + at, one, 1.0, flags, 1, None, None, None, None, at, b"x")
            connection.execute("INSERT INTO delivery VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            used.append(one)
            lists.append(flags & sql.LISTED or at in {5, 7, 8} or lane > rising.RISING)  # the eighth came before two
    schema.take_steps(connection, schema.OUTBOX, 2)
    assert connection.execute("SELECT count(*) FROM milestone").fetchall() == [(10,)]
    assert [
        bool(flags & sql.LISTED) for (flags,) in connection.execute("SELECT flags FROM delivery ORDER BY place")
    ] == [bool(one) for one in lists]
    connection.close()
    check(path, used, context_of(tmp_path, FakeClock()))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE delivery SET id = zeroblob(16) WHERE place = (SELECT max(place) FROM delivery)", "out of the order"),
        ("UPDATE milestone SET id = (SELECT max(id) FROM delivery)", "out of the order"),
        ("DELETE FROM milestone", "too few milestones"),
        ("UPDATE lane SET lane = 300; UPDATE delivery SET place = place + (299 << 43)", "out of the order"),
    ],
)
def test_ids_that_cannot_be_found_are_listed(narrow, tmp_path, damage, told):
    """A check sees it, and its repair brings everything that waits there into the index."""
    sender = Sender(tmp_path)
    sender.sends(1, 4 * SPACING + 2)
    connection = apsw.Connection(str(sender.outbox.engine.path))
    connection.execute(damage)
    for repair in (False, True):
        checking = ContentCheck("outbox", connection, sender.context, repair=repair)
        check_outbox(checking)
        assert [told in one.text for one in checking.findings] == [True], checking.findings
    used = [bytes(identity) for (identity,) in connection.execute("SELECT id FROM delivery")]
    check(sender.outbox.engine.path, used, sender.context)
    connection.close()
    sender.storage.close()
