"""Transactions that outlive their sessions: what the engine promises to the tables' owners."""

import os
import socket
import threading
import time

import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres.engine.engine import QuickJob
from postgres_stores import COUNT, cut_all, numbers, put

from dropr_core.errors import Closed, StoreBusy, WriteFailed

# ── sessions that break ──────────────────────────────────────────────────────────────────────────


def test_a_session_that_was_cut_while_idle_is_replaced(engine_at, postgres_server, postgres_url):
    """Whoever calls next notices nothing, whatever kind of call it is."""
    engine = engine_at(postgres_url)
    engine.relaxed(put(1))
    numbers(engine)
    assert cut_all(postgres_server, postgres_url) == 3
    engine.write(put(2))
    engine.relaxed(put(3))
    assert numbers(engine) == [1, 2, 3]


def test_a_transaction_whose_session_breaks_is_done_again_once(engine_at, postgres_server, postgres_url):
    """What it had written before is not there twice."""
    engine, tries = engine_at(postgres_url), []

    def job(connection):
        connection.execute("INSERT INTO t VALUES (1)")
        tries.append(connection.info.backend_pid)
        if len(tries) == 1:
            postgres_server.cut(connection.info.backend_pid)
        connection.execute("INSERT INTO t VALUES (2)")

    engine.write(job)
    assert len(tries) == 2
    assert numbers(engine) == [1, 2]


@pytest.mark.parametrize("kind", ["write", "relaxed"])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_answer_to_commit_is_asked_for(kind, arrives, engine_at, postgres_server, postgres_url, monkeypatch):
    """Whether the commit went through or not, the transaction is there once, and the caller hears no word of it."""
    from dropr_storage_postgres.engine import sessions

    engine, real, lost = engine_at(postgres_url), sessions._command, []

    def losing(connection, command):
        if command == b"COMMIT" and not lost:
            lost.append(1)
            if arrives:
                real(connection, command)
            postgres_server.cut(connection.info.backend_pid)
            return real(connection, b"SELECT 1")
        return real(connection, command)

    monkeypatch.setattr(sessions, "_command", losing)
    getattr(engine, kind)(put(1))
    assert lost
    assert numbers(engine) == [1]


def test_a_commit_that_hangs_is_decided_before_it_is_asked_for(engine_at, postgres_server, postgres_url, monkeypatch):
    """A session of which only our end broke is ended at the server before anybody asks what became of it."""
    from dropr_storage_postgres.engine import sessions

    engine, real, lost = engine_at(postgres_url), sessions._command, []

    def losing(connection, command):
        if command == b"COMMIT" and not lost:
            lost.append(connection.info.backend_pid)
            ours, theirs = socket.socketpair()
            os.dup2(ours.fileno(), connection.pgconn.socket)  # the server sees nothing of it
            ours.close()
            theirs.close()
            return real(connection, b"SELECT 1")
        return real(connection, command)

    held = os.dup(engine._durable._connection.pgconn.socket)
    monkeypatch.setattr(sessions, "_command", losing)
    engine.write(put(1))
    os.close(held)
    assert numbers(engine) == [1]
    assert lost[0] not in postgres_server.backends(psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"])


@pytest.fixture
def crashing(own_postgres, monkeypatch):
    """The server crashes at the first commit that follows, after or before it was done; the answer is lost."""
    from dropr_storage_postgres.engine import sessions

    real, left = sessions._command, []

    def losing(connection, command):
        if command == b"COMMIT" and left:
            if left.pop():
                real(connection, command)
            own_postgres.kill9()
            own_postgres.start()
            return real(connection, b"SELECT 1")
        return real(connection, command)

    monkeypatch.setattr(sessions, "_command", losing)
    return left.append


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_that_a_crash_swallowed_is_not_guessed(done, own_postgres, engine_at, crashing):
    """The server may give a transaction's number to another one after a crash: its word is not taken. Who can tell by
    what is stored is asked, and who cannot hears that nobody knows.
    """
    engine, doubts = engine_at(own_postgres.url()), []

    def run(connection, items):
        if not doubts or not connection.execute(COUNT).fetchone()[0]:
            connection.execute("INSERT INTO t VALUES (1)")
        return list(items)

    crashing(done)
    job = QuickJob(run, "item", lambda _: None, lambda: doubts.append(1))
    assert engine.write(job) == "item"
    assert (doubts, numbers(engine)) == ([1], [1])
    crashing(done)
    with pytest.raises(WriteFailed, match="may be stored or not"):
        engine.write(put(2))
    assert numbers(engine) == ([1, 2] if done else [1])
    crashing(done)
    engine.relaxed(lambda connection: connection.execute("UPDATE t SET n = 7 WHERE n = 1") and None)
    assert 7 in numbers(engine)


def test_a_quick_job_in_doubt_goes_the_long_way(engine_at, postgres_server, postgres_url):
    """One statement that was answered by a broken line is not done a second time without looking."""
    engine, doubts = engine_at(postgres_url), []

    def quick(connection):
        connection.execute("INSERT INTO t VALUES (1)")
        postgres_server.cut(connection.info.backend_pid)
        connection.execute("SELECT 1")

    def run(connection, items):
        there = connection.execute(COUNT).fetchone()[0]
        return [f"{there} there, {len(doubts)} doubted" for _ in items]

    assert engine.write(QuickJob(run, "item", quick, lambda: doubts.append(1))) == "1 there, 1 doubted"


def test_a_call_that_kills_its_sessions_ends(engine_at, postgres_server, postgres_url):
    """A transaction that breaks every session fails in the end, and says so."""
    engine = engine_at(postgres_url)

    def job(connection):
        postgres_server.cut(connection.info.backend_pid)
        connection.execute("SELECT 1")

    with pytest.raises(StoreBusy, match="cannot be reached"):
        engine.write(job)
    engine.write(put(1))
    assert numbers(engine) == [1]


def test_deadlocks_are_done_again(engine_at, postgres_url):
    """Two transactions that lock in different orders both go through."""
    engine, other = engine_at(postgres_url), engine_at(postgres_url)
    engine.write(lambda connection: connection.execute("INSERT INTO t VALUES (1), (2)"))
    both = threading.Barrier(2)

    def work(one, first, second):
        met = []

        def job(connection):
            connection.execute("UPDATE t SET n = n WHERE n = %s", (first,))
            if not met:
                met.append(1)
                both.wait(60)
            connection.execute("UPDATE t SET n = n WHERE n = %s", (second,))

        one.write(job)

    threads = [threading.Thread(target=work, args=each) for each in ((engine, 1, 2), (other, 2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert numbers(engine) == [1, 2]


# ── a server that is away ────────────────────────────────────────────────────────────────────────


def test_calls_wait_for_a_server_that_restarts(engine_at, own_postgres):
    """A restart is a pause, for those under way and for those who come meanwhile."""
    engine = engine_at(own_postgres.url())
    engine.write(put(1))
    own_postgres.stop()
    thread = threading.Thread(target=engine.write, args=(put(2),))
    thread.start()
    own_postgres.start()
    thread.join(60)
    assert numbers(engine) == [1, 2]


def test_a_server_that_is_away_for_long_is_said_once(engine_at, own_postgres, caplog):
    """Calls fail with what is wrong and what to do; the log has a line for the end and one for the return."""
    engine = engine_at(own_postgres.url(), wait=0.1)
    own_postgres.kill9()
    for _ in range(3):
        with pytest.raises(StoreBusy, match=r"cannot be reached .* is it running"):
            engine.write(put(1))
    own_postgres.start()
    engine.write(put(2))
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert numbers(engine) == [2]


def test_no_connection_left(engine_at, own_postgres):
    """Who finds all connections taken is told, and goes on when there is one."""
    own_postgres.configure(max_connections="10", superuser_reserved_connections="0")
    own_postgres.restart()
    engine = engine_at(own_postgres.url(), wait=0.1)
    taken = []
    with pytest.raises(psycopg.OperationalError):
        for _ in range(20):
            taken.append(psycopg.connect(own_postgres.url()))
    with pytest.raises(StoreBusy, match="no connection left"):
        engine.relaxed(put(1))
    for one in taken:
        one.close()
    engine.relaxed(put(2))


# ── flushes and forks ────────────────────────────────────────────────────────────────────────────


def test_relaxed_commits_reach_the_disk_soon(engine_at, own_postgres):
    """What was committed without waiting survives a crash of the server after the flush interval."""
    own_postgres.configure(wal_writer_delay="10s")  # or the server would do it by itself
    own_postgres.restart()
    engine = engine_at(own_postgres.url())
    engine.relaxed(put(1))
    until = time.monotonic() + 60
    while engine.flusher.dirty:
        assert time.monotonic() < until
        time.sleep(0.001)
    engine.write(lambda _: None)  # after the flush under way
    own_postgres.kill9()
    own_postgres.start()
    assert numbers(engine) == [1]


def test_a_fork_lets_go_of_the_sessions(engine_at, postgres_server, postgres_url):
    """A forked child is refused, keeps no session of its parent's open, and does it no harm by ending."""
    engine = engine_at(postgres_url)
    numbers(engine)
    told, tell = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.write(put(1))
        except Closed:
            os.write(tell, b"closed")
        os.read(wait, 1)
        engine.close()
        os._exit(0)
    assert os.read(told, 6) == b"closed"
    engine.close()  # the child lives: were the sessions open there, the server would keep them
    name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
    until = time.monotonic() + 60
    while postgres_server.backends(name):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.write(go, b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (told, tell, wait, go):
        os.close(end)
