"""Many at once: the group commit, and many rows with few statements."""

import logging
import threading

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine.bulk import insert
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import Conflict
from dropr_core.model.names import IdMaker, Lane
from dropr_core.storage_kit.group_commit import BatchedJob, run_together
from dropr_core.system.clock import FakeClock


@pytest.fixture
def storage(tmp_path):
    values = {"clock": FakeClock(), "log": logging.getLogger("t"), "min_free": 0, "event": lambda *_: None}
    opened = dropr_storage(Options(reserve=0), Context(node="n", data=tmp_path, **values))
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 127, 128, 200])
def test_any_number_of_rows_is_inserted_in_order(count):
    """Whatever the number of rows, each arrives once and in its order."""
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(n INTEGER PRIMARY KEY AUTOINCREMENT, a, b)")
    rows = [(index, f"b{index}") for index in range(count)]
    insert(connection, "INSERT INTO t(a, b) VALUES(?, ?)", rows)
    assert connection.execute("SELECT a, b FROM t ORDER BY n").fetchall() == rows


def test_one_bad_message_of_a_group_harms_no_other(storage):
    """Three threads' messages in one commit, one with a taken id: that one gets Conflict, the others are stored."""
    make, taken = IdMaker(), b"t" * 16
    storage.outbox.append([NewMessage(taken, "c", 5, ("p",), b"first", fingerprint=b"1")])
    bad = NewMessage(taken, "c", 5, ("p",), b"other", fingerprint=b"2")
    good = [NewMessage(make(), "c", 5, ("p",), b"x"), NewMessage(make(), "c", 5, ("p",), b"y")]
    outbox = storage.outbox
    jobs = [BatchedJob(outbox.appender.append_all, [one]) for one in (good[0], bad, good[1])]
    first, conflict, third = outbox.engine._group._run_all(jobs)
    assert isinstance(conflict, Conflict)
    assert [result[0].sequences for result in (first, third)] == [(2,), (3,)]
    batch = outbox.take(outbox.lanes()[0].lane, 10, 1000)
    assert [entry.envelope for entry in batch.entries] == [b"first", b"x", b"y"]


def test_many_threads_get_their_own_numbers(storage):
    """Eight threads that send at once: every message gets a number of its own, none is missing."""
    make, numbers, start = IdMaker(), [], threading.Barrier(8)

    def send():
        start.wait(10)
        for _ in range(25):
            placed = storage.outbox.append([NewMessage(make(), "c", 5, ("p",), b"x")])
            numbers.append(placed[0].sequences[0])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == list(range(1, 201))
    assert storage.outbox.counts()["p", "c"] == {"sent": 200, "queued": 200}


class Planted(Exception):
    """A transaction that fails on purpose."""


STEPS = ["one", "two", "both", "settle", "renumber", "fail", "soft fail", "other lane", "beside", "afresh"]


@given(st.lists(st.sampled_from(STEPS), max_size=25))
@example(["afresh", "one"])  # the new connection has seen as many changes as the old one had
@example(["beside", "one", "settle", "beside", "settle", "one"])
@settings(max_examples=60, deadline=None)
def test_whoever_writes_between_them_numbers_follow_each_other(tmp_path_factory, steps):
    """What a store remembers of a lane's end holds only while nobody else wrote, no transaction failed, and the
    connection is the same."""
    place = tmp_path_factory.mktemp("s")
    values = {"clock": FakeClock(), "log": logging.getLogger("t"), "min_free": 0, "event": lambda *_: None}
    calm = Options(reserve=0, flush=600.0)  # else flushes come in between when the clock wants it
    one, two = (dropr_storage(calm, Context(node="n", data=place, **values)) for _ in range(2))
    make, lane, last = IdMaker(), Lane("p", "c", 5), 0

    def send(storage, channel="c", count=1):
        placed = storage.outbox.append([NewMessage(make(), channel, 5, ("p",), b"x") for _ in range(count)])
        return [each.sequences[0] for each in placed]

    def fail(storage, run):
        def job(connection):
            storage.outbox.appender._append(connection, [NewMessage(make(), "c", 5, ("p",), b"never")])
            raise Planted

        with pytest.raises(Planted):
            run(job)

    def beside(storage):
        """One message, and others in the same transaction; how many."""
        single, others = ([NewMessage(make(), "c", 5, ("p",), b"x") for _ in range(count)] for count in (1, 2))
        append = storage.outbox.appender.append_all
        jobs = [lambda connection, some=some: append(connection, [some]) for some in (single, others)]
        storage.outbox.engine.write_durable(lambda connection: run_together(connection, jobs))
        return 3

    def afresh(storage, other):
        """New connections, as after a fork, and somebody else writes before each does; how many messages that were."""
        engine, sent = storage.outbox.engine, 1
        connect = engine._connect

        def slowly(synchronous):
            nonlocal sent
            connection = connect(synchronous)
            sent += len(send(other))
            return connection

        assert engine.pause()
        engine.resume()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(engine, "_connect", slowly)
            send(storage)
        return sent

    for step in ["one", *steps, "one", "two"]:
        if step in {"one", "two"}:
            assert send(one if step == "one" else two) == [last + 1]
            last += 1
        elif step == "both":
            assert send(two, count=2) == [last + 1, last + 2]
            last += 2
        elif step == "settle":
            batch = two.outbox.take(lane, 1, 1)
            if batch is not None:
                two.outbox.settle(lane, batch.upto)
        elif step == "renumber":
            one.outbox.renumber()
            last = sum(stats.depth for stats in one.outbox.lanes() if stats.lane == lane)
        elif step == "beside":
            last += beside(one)
        elif step == "afresh":
            last += afresh(one, two)
        elif step == "other lane":
            send(one, "d")
        else:
            fail(one, one.outbox.engine.write_durable if step == "fail" else one.outbox.engine.write)
    (stats,) = (stats for stats in one.outbox.lanes() if stats.lane == lane)
    assert stats.last == last
    assert stats.bytes == stats.depth
    one.close()
    two.close()
