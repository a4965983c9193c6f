"""Ids of the inbox that are in no index: found by their order, whatever was done to the messages."""

import logging

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import rising, schema
from dropr_storage_sqlite.fsck import order
from dropr_storage_sqlite.fsck.findings import ContentCheck
from dropr_storage_sqlite.fsck.inbox import check_inbox
from dropr_storage_sqlite.inbox import ids, sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainJobs
from dropr_core.contracts.storage import Ack, Arrival, Bury, Job, JobMove, Release, Selection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, IdMaker, SourceLane, StoreId, first_rank
from dropr_core.system.clock import FakeClock

SPACING, RISING = 4, 3


@pytest.fixture
def narrow(monkeypatch):
    """Milestones close to each other, and few queues whose ids rise."""
    for module in (rising, order, ids):
        monkeypatch.setattr(module, "SPACING", SPACING, raising=False)
        monkeypatch.setattr(module, "RISING", RISING, raising=False)
    return monkeypatch


def context_of(directory, clock):
    return Context(node="n", data=directory, clock=clock, log=logging.getLogger("t"), min_free=0)


WALKED = sql.BY_ORDER.replace(" AND id = ?1 AND flags & 128 = 0", " AND queue.queue <= 3 GROUP BY 1").replace(
    "place, id, sender, arrived, flags, size, key, expires", "queue.queue, count(*)"
)
"""How many messages of each queue a look-up reads."""


class Keeper:
    """An inbox to which everything is done that brings, moves and removes messages."""

    def __init__(self, directory):
        self.clock = FakeClock()
        self.context = context_of(directory, self.clock)
        self.storage = dropr_storage(Options(reserve=0), self.context)
        self.inbox, self.make, self.wall, self.used = self.storage.inbox, IdMaker(lambda: self.wall), 1e9, []
        self.worker, self.stores, self.once = self.inbox.register(), 0, []

    def job(self, **more):
        self.wall += 0.001
        identity = more.pop("id", None) or self.make()
        self.used.append(identity)
        return Job(identity, b"x" + identity, **more)

    def several(self, count, **more):
        return [self.job(**more) for _ in range(count)]

    def put(self, queue, jobs):
        if jobs:
            self.inbox.put(f"c{queue}", 5, "self", jobs)

    def plain(self, queue, jobs):
        self.put(queue, PlainJobs([job.id for job in jobs], [job.envelope for job in jobs]))

    def puts(self, queue, count):
        for one in self.several(count):
            self.put(queue, [one])

    def batch(self, queue, count):
        self.plain(queue, self.several(2 + count))

    def overtaken(self, queue, count):
        late, soon = self.several(2 + count), self.several(1 + count)
        self.plain(queue, soon)
        self.plain(queue, late)

    def overlapping(self, queue, count):
        some = self.several(6 + count)
        self.put(queue, some[2:4])
        self.plain(queue, some[:2] + some[4:])

    def falling(self, queue, count):
        self.plain(queue, self.several(2 + count)[::-1])

    def foreign(self, queue, count):
        made = [bytes([at]) * 6 + b"\x40" + bytes([len(self.used) % 256]) * 9 for at in range(1 + count)]
        self.plain(queue, [self.job(id=one) for one in made])

    def pushed(self, queue, count):
        """By a sender that says it may have sent some of it before, twice the same."""
        jobs = self.several(1 + count)
        for part in (jobs[:2], jobs):
            self.stores += 1
            source = SourceLane("shop", StoreId(b"%8d" % self.stores), f"c{queue}", 5)
            marked = [job._replace(possible_duplicate=True) for job in part]
            self.inbox.accept([Arrival(source, START, Head(len(part), part[-1].id), marked)])

        self.once += [job.id for job in jobs]

    def others(self, queue, count):
        self.put(queue, self.several(count, key="k"))
        self.put(queue, self.several(count, due_in=5.0))
        self.put(queue, self.several(count, expires_in=3.0))
        self.put(queue, self.several(count, rank=first_rank(5) + 7))

    def acknowledge(self, queue, count):
        self.inbox.settle([Ack(claim) for claim in self.inbox.claim([f"c{queue}"], 1 + count * 3, self.worker)])

    def some(self, queue, count):
        """One in three is returned, one buried."""
        claims = self.inbox.claim([f"c{queue}"], 1 + count * 2, self.worker)
        ways = (Ack, Release, lambda claim: Bury(claim, "no"))
        self.inbox.settle([ways[at % 3](claim) for at, claim in enumerate(claims)])

    def rerank(self, queue, count):
        """To the queue of another priority, which may be one whose ids rise."""
        rank = first_rank(count % 4 + 3)
        claims = self.inbox.claim([f"c{queue}"], 2 + count, self.worker)
        self.inbox.settle([Release(claim, rank=rank) for claim in claims[1:]])

    def kick(self, _, count):
        for one in self.inbox.scan(Selection(states=frozenset({State.BURIED})), limit=count):
            assert self.inbox.move([JobMove(one, State.READY)]) == [True]

    def drop(self, _, count):
        self.inbox.wipe(Selection(ids=tuple(self.used[-count - 3 :])))

    def later(self, _, count):
        self.clock.advance(count)
        self.inbox.sweep()

    def check(self):
        """Each id leads to its messages."""
        found = check(self.inbox.engine.path, self.used, self.context)
        assert max((len(found[one]) for one in self.once), default=0) <= 1
        for one, places in found.items():
            shown = self.inbox.scan(Selection(ids=(one,)))
            assert [job.number for job in shown] == sorted(place & sql.MASK for place in places)
            if any(job.state is not State.EXPIRED for job in shown):
                assert self.inbox.envelope(one) == b"x" + one


def check(path, used, context):
    """Each id leads to its rows and no others, and nobody walks far for it. The rows of each."""
    connection = apsw.Connection(str(path))
    rows = {one: [] for one in used}
    for place, identity in connection.execute("SELECT place, id FROM message ORDER BY place"):
        rows[bytes(identity)].append(place)
    for one, places in rows.items():
        assert sorted(row[0] for row in ids.find_rows(connection, [one])) == places, one
        assert max((n for _, n in connection.execute(WALKED, (one,))), default=0) <= rising.SPACING + 1
    checking = ContentCheck("inbox", connection, context, repair=False)
    check_inbox(checking)
    assert checking.findings == []
    connection.close()
    return rows


WAYS = ("puts", "batch", "overtaken", "overlapping", "falling", "foreign", "pushed", "others", "acknowledge", "some",
        "rerank", "kick", "drop", "later")  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(1, RISING + 1), st.integers(0, 8)), max_size=25)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_message_is_found_by_its_id(narrow, tmp_path_factory, steps):
    """Whatever came, was settled, moved or ended, an id leads to just its messages."""
    keeper = Keeper(tmp_path_factory.mktemp("keeper"))
    for queue in range(1, RISING + 2):  # numbered in this order
        keeper.puts(queue, 1)
    for way, queue, count in steps:
        getattr(keeper, way)(queue, count)
    keeper.check()
    keeper.storage.close()


def stones(keeper):
    return keeper.inbox.engine.look("SELECT count(*) FROM milestone")[0][0]


def listed(keeper):
    return keeper.inbox.engine.look(f"SELECT count(*) FROM message WHERE flags & {sql.APART} <> 0")[0][0]


def test_what_comes_in_order_is_in_no_index(tmp_path):
    """One by one and in batches, of this node and of a peer; a milestone for 64 of them."""
    keeper = Keeper(tmp_path)
    keeper.puts(1, 100)
    keeper.batch(1, 998)
    keeper.puts(2, 1)
    keeper.batch(1, 98)
    assert (listed(keeper), stones(keeper)) == (0, 1200 // rising.SPACING)
    keeper.check()
    keeper.storage.close()


def test_queues_in_turns_need_no_milestone_for_each_message(narrow, tmp_path):
    """Numbers rise over all queues: what others got since does not count."""
    keeper = Keeper(tmp_path)
    for _ in range(16):
        for queue in range(1, RISING + 1):
            keeper.puts(queue, 1)
    assert stones(keeper) == RISING * 16 // SPACING
    keeper.check()
    keeper.storage.close()


def test_nobody_walks_over_what_moved_there(narrow, tmp_path):
    """Many messages get the rank of another queue, and come into the middle of what rises there."""
    keeper = Keeper(tmp_path)
    keeper.inbox.put("c1", 3, "self", [keeper.job()])
    keeper.puts(1, 10 * SPACING)
    keeper.inbox.put("c1", 3, "self", [keeper.job()])
    claims = [claim for claim in keeper.inbox.claim(["c1"], 99, keeper.worker) if claim.priority == 5]
    keeper.inbox.settle([Release(claim, rank=first_rank(3)) for claim in claims])
    assert listed(keeper) == 10 * SPACING
    keeper.check()
    keeper.storage.close()


@pytest.mark.parametrize("first", ["none", "buried", "delayed"])
def test_milestones_go_with_what_they_stood_for(narrow, tmp_path, first):
    """Also where a message stays at the beginning, and where consumers take what was delayed and never anything new."""
    keeper, delay = Keeper(tmp_path), {"due_in": 1.0} if first == "delayed" else {}
    if first == "buried":
        keeper.puts(1, 1)
        keeper.inbox.settle([Bury(keeper.inbox.claim(["c1"], 1, keeper.worker)[0], "no")])
    keeper.put(1, keeper.several(3 * SPACING, **delay))
    for _ in range(30):
        keeper.put(1, keeper.several(SPACING, **delay))
        keeper.clock.advance(1.0)
        claims = keeper.inbox.claim(["c1"], SPACING, keeper.worker)
        assert keeper.inbox.settle([Ack(claim) for claim in claims]) == [True] * SPACING
        assert stones(keeper) <= 10
    keeper.check()
    keeper.storage.close()


def test_a_backlog_is_not_read_for_its_milestones(narrow, tmp_path):
    """What no consumer has come to is left alone: none of its milestones is looked at, whatever is put behind it."""
    keeper = Keeper(tmp_path)
    keeper.batch(1, 198)
    narrow.setattr(ids.sql, "CLEAR", "no statement")
    keeper.batch(1, 198)
    keeper.acknowledge(1, 100)
    with pytest.raises(StoreError, match="near"):
        keeper.batch(1, 8)
    keeper.storage.close()


def test_a_wall_clock_that_stood_wrong_is_forgotten(narrow, tmp_path):
    """What comes after ids of the future is listed, until the queue has been empty: then it rises again."""
    keeper = Keeper(tmp_path)
    keeper.wall += 1e6
    keeper.puts(1, 6)
    keeper.wall, keeper.make = 1e9, IdMaker(lambda: keeper.wall)
    keeper.puts(1, 5)
    assert listed(keeper) == 5
    keeper.check()
    keeper.acknowledge(1, 9)
    keeper.puts(1, 5)
    assert listed(keeper) == 0
    keeper.check()
    keeper.storage.close()


def test_a_store_of_version_2_is_brought_to_the_order_of_its_ids(tmp_path):
    """What rises becomes unlisted, between milestones; the rest is listed, and all is found."""
    make, path, used, lists = IdMaker(), tmp_path / "inbox.db", [], list[bool]()
    connection = apsw.Connection(str(path))
    for step in schema.INBOX.steps[:2]:
        connection.execute(step)
    connection.execute("INSERT INTO sender(sender, name) VALUES(1, 'shop')")
    for queue, count in ((1, 700), (2, 10), (rising.RISING + 1, 8)):
        some = [make() for _ in range(count)]
        some[5], some[7] = some[7], some[5]
        some[4] = bytes(6) + b"\x40" + bytes([queue % 256]) * 9
        connection.execute("INSERT INTO queue(queue, channel, priority, ready, bytes) VALUES(?, ?, 5, ?, ?)",
                           (queue, f"c{queue}", count, count))  # fmt: skip
        for at, one in enumerate(some, 1):
            values = (sql.pack(queue, len(used) + 1), one, 1, 1.0, sql.DUPLICATE if at % 9 == 0 else 0, 1, b"x")
            connection.execute("INSERT INTO message VALUES(?, ?, ?, ?, ?, ?, NULL, NULL, ?)", values)
            used.append(one)
            lists.append(at in {5, 7, 8} or queue > rising.RISING)  # the eighth came before two
    connection.execute("UPDATE meta SET value = ? WHERE key = 'last'", (len(used),))
    schema.take_steps(connection, schema.INBOX, 2)
    assert connection.execute("SELECT count(*) FROM milestone").fetchall() == [(10,)]
    flags = [row[0] for row in connection.execute("SELECT flags FROM message ORDER BY place")]
    assert [bool(one & sql.APART) for one in flags] == lists
    connection.close()
    check(path, used, context_of(tmp_path, FakeClock()))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE message SET id = zeroblob(16) WHERE place = (SELECT max(place) FROM message)", "out of the order"),
        ("UPDATE milestone SET id = (SELECT max(id) FROM message)", "out of the order"),
        ("DELETE FROM milestone", "too few milestones"),
        ("UPDATE queue SET queue = 300; UPDATE message SET place = place + (299 << 44)", "out of the order"),
    ],
)
def test_ids_that_cannot_be_found_are_listed(narrow, tmp_path, damage, told):
    """A check sees it, and its repair brings everything that waits there into the index; what comes then rises."""
    keeper = Keeper(tmp_path)
    keeper.puts(1, 4 * SPACING + 2)
    connection = apsw.Connection(str(keeper.inbox.engine.path))
    connection.execute(damage)
    for repair in (False, True):
        checking = ContentCheck("inbox", connection, keeper.context, repair=repair)
        check_inbox(checking)
        assert [told in one.text for one in checking.findings] == [True], checking.findings
    count = listed(keeper)
    keeper.puts(1, 5)
    assert listed(keeper) == count + (5 if "300" in damage else 0)
    used = [bytes(identity) for (identity,) in connection.execute("SELECT id FROM message")]
    connection.close()
    check(keeper.inbox.engine.path, used, keeper.context)
    keeper.storage.close()
