"""An inbox in SQLite to which everything is done that brings, moves and removes messages, and what must hold then.

Owns the keeper of such an inbox, and the check of its ids. Must not know in which order things are done.
"""

import logging

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import rising
from dropr_storage_sqlite.fsck.findings import ContentCheck
from dropr_storage_sqlite.fsck.inbox import check_inbox
from dropr_storage_sqlite.inbox import ids, sql

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import PlainJobs
from dropr_core.contracts.storage import Ack, Arrival, Bury, Job, JobMove, Release, Selection
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, IdMaker, SourceLane, StoreId, first_rank
from dropr_core.system.clock import FakeClock

SPACING, RISING = 4, 3


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


def stones(keeper):
    return keeper.inbox.engine.look("SELECT count(*) FROM milestone")[0][0]


def listed(keeper):
    return keeper.inbox.engine.look(f"SELECT count(*) FROM message WHERE flags & {sql.APART} <> 0")[0][0]
