"""A put whose answer is lost is found by its mark: it is there once, and its numbers are told."""

import contextlib
import signal
import threading
import time

import psycopg
import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage

from dropr_core.contracts.storage import Arrival, Put, Selection
from dropr_core.errors import QueueFull, StoreError
from dropr_core.model.names import START, Head
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job, make_context, new_id


@pytest.fixture
def store(postgres_schema, tmp_path):
    """A store on a real server."""
    url, schema = postgres_schema
    storage = dropr_storage(Options(url=url, schema=schema), make_context(tmp_path, SystemClock()))
    yield storage
    storage.close()


def lose(storage, monkeypatch, *, done, meanwhile=lambda: None, times=1):
    """Let the session break at the next put: after it was done, or before."""
    acceptor = storage.inbox._acceptor
    run, left = acceptor._run, [times]

    def losing(connection, items, mark=None):
        if not left[0]:
            return run(connection, items, mark)
        left[0] -= 1
        if done:
            run(connection, items, mark)
        meanwhile()
        connection.close()
        raise psycopg.OperationalError("the line is gone")

    monkeypatch.setattr(acceptor, "_run", losing)


def there(storage):
    """Numbers and ids of all messages."""
    return [(info.number, info.id) for info in storage.inbox.scan(Selection(), limit=1000)]


@pytest.mark.parametrize("done", [True, False])
def test_a_put_whose_answer_is_lost_is_there_once(done, store, monkeypatch):
    """Whether it had been done or not: the caller is told the numbers at which its messages stand, once each."""
    store.inbox.put(CHANNEL, 5, SENDER, [job()])
    lose(store, monkeypatch, done=done)
    jobs = [job(), job(due_in=50.0), job(key="k")]
    numbers = store.inbox.put(CHANNEL, 5, SENDER, jobs)
    assert list(numbers) == [2, 3, 4]
    assert there(store)[1:] == [(number, one.id) for number, one in zip(numbers, jobs, strict=True)]


def test_a_put_that_was_handled_meanwhile_is_not_put_again(store, monkeypatch):
    """Another consumer took the message and acknowledged it before the question what became of the put."""
    store.inbox.put(CHANNEL, 5, SENDER, [job()])
    worker = Worker(store.inbox)
    lose(store, monkeypatch, done=True, meanwhile=lambda: store.inbox.acknowledge(worker.claim()))
    assert list(store.inbox.put(CHANNEL, 5, SENDER, [job()])) == [2]
    assert there(store) == []


def test_what_may_stand_here_already_is_put_as_before(store, monkeypatch):
    """Possible duplicates are stored once, with the number that they have here, also when the first session breaks."""
    known = job(possible_duplicate=True)
    (first,) = store.inbox.put(CHANNEL, 5, SENDER, [known])
    lose(store, monkeypatch, done=False)
    assert list(store.inbox.put(CHANNEL, 5, SENDER, [job(), known])) == [2, first]


def test_marks_of_processes_that_are_gone_are_removed(store):
    """The table of marks does not grow with every process that ever put something."""
    engine = store.engines[1]
    old = "INSERT INTO in_put SELECT g, 1, 1, now() - interval '2 days' FROM generate_series(1, 9) g"
    engine.write(lambda connection: connection.execute(old) and None)
    store.inbox.put_all([Put(CHANNEL, 5, SENDER, [job()]), Put("other", 5, SENDER, [job()])])
    assert engine.query("SELECT count(*) FROM in_put") == [(1,)]


def test_what_is_stored_flushes_what_was_relaxed_before(store, monkeypatch):
    """A put or a push that is taken counts as a flush; a push that is refused wrote nothing, and does not."""
    begun = []
    monkeypatch.setattr(store.engines[1].flusher, "covered", begun.append)
    store.inbox.put(CHANNEL, 5, SENDER, [job()])
    source = Source(store.inbox)
    source.push(job())
    assert len(begun) == 2
    (refused,) = store.inbox.accept([source.arrival(job(), after=START)])
    assert not refused.taken
    assert len(begun) == 2


@pytest.fixture
def limited(postgres_schema, tmp_path):
    """A store whose inbox takes three messages."""
    url, schema = postgres_schema
    storage = dropr_storage(Options(url=url, schema=schema), make_context(tmp_path, SystemClock(), max_messages=3))
    yield storage
    storage.close()


def test_what_is_over_a_limit_takes_no_number(limited):
    """Refused puts and arrivals, plain ones and others, leave no gap in the numbers."""
    source = Source(limited.inbox)
    source.push(job())
    limited.inbox.put(CHANNEL, 5, SENDER, [job()])
    for jobs in ([job(), job()], [job(key="k"), job()]):
        with pytest.raises(QueueFull):
            limited.inbox.put(CHANNEL, 5, SENDER, jobs)
        with pytest.raises(QueueFull):
            limited.inbox.accept([source.arrival(*jobs)])
    assert list(limited.inbox.put(CHANNEL, 5, SENDER, [job()])) == [3]


def test_a_full_inbox_tells_its_head_to_a_push_that_does_not_follow(limited):
    """What would not be taken anyway is not refused for want of room; parts of one call follow each other."""
    source = Source(limited.inbox)
    first = source.arrival(job())
    second = Arrival(source.lane, first.upto, Head(2, new_id()), (job(),))
    assert [word.taken for word in limited.inbox.accept([first, second])] == [True, True]
    limited.inbox.put(CHANNEL, 5, SENDER, [job()])
    (word,) = limited.inbox.accept([first])
    assert word == (second.upto, False)
    with pytest.raises(QueueFull):
        limited.inbox.accept([Arrival(source.lane, second.upto, Head(3, new_id()), (job(),))])


@pytest.mark.parametrize("jobs", [lambda: [job()], lambda: [job(key="k")]], ids=["plain", "special"])
def test_a_push_that_waited_for_its_turn_sees_the_head_as_it_is_then(jobs, store, postgres_schema):
    """Another machine pushes the same lane at the same moment, and commits first: the later one changes nothing."""
    url, schema = postgres_schema
    source = Source(store.inbox)
    source.push(job())
    arrival, words = source.arrival(*jobs()), []
    later = threading.Thread(target=lambda: words.extend(store.inbox.accept([arrival])))
    with psycopg.connect(url, autocommit=False) as other, psycopg.connect(url, autocommit=True) as look:
        other.execute(f"SET search_path = {schema}")
        other.execute("SELECT pg_advisory_xact_lock('in_job'::regclass::oid::integer, 1)")
        other.execute("UPDATE in_source SET sequence = 2, id = %s", (bytes(16),))
        later.start()
        until = time.monotonic() + 60
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not look.execute(waiting).fetchone():
            assert time.monotonic() < until
            time.sleep(0.005)
        other.commit()
        later.join(60)
    assert words == [(Head(2, bytes(16)), False)]
    assert len(there(store)) == 1


@pytest.mark.parametrize("folded", [False, True])
def test_settlements_whose_answer_is_lost_are_told_as_done(folded, store, monkeypatch):
    """Also where the figures were put together meanwhile, with which their marks stand."""
    store.inbox.put(CHANNEL, 5, SENDER, [job(), job()])
    claims = Worker(store.inbox).claim(limit=2)
    engine = store.engines[1]
    quick, left = engine._relaxed.quick, [1]

    def losing(work, doubt, **more):
        result = quick(work, doubt, **more)
        if not left:
            return result
        left.clear()
        if folded:
            engine.write(lambda connection: connection.execute("SELECT in_fold(0)") and None)
        return None

    monkeypatch.setattr(engine._relaxed, "quick", losing)
    assert store.inbox.acknowledge(claims) == [True, True]
    assert store.inbox.acknowledge(claims) == [False, False]
    assert there(store) == []


HURTS = {
    "kill a backend": lambda server: server.kill(server.backends("postgres", like="dropr%inbox")[0]),
    "cut sessions": lambda server: server.cut_all("postgres", like="dropr%inbox"),
    "crash": lambda server: (server.stop(signal.SIGQUIT), server.start()),
}


@pytest.mark.parametrize("hurt", HURTS)
def test_putters_hear_nothing_of_a_server_in_trouble(hurt, own_postgres, tmp_path):
    """Threads that put by themselves and together, while sessions end and the server crashes: each message is there
    once, at the number that was told, and nobody gets an error.
    """
    storage = dropr_storage(Options(url=own_postgres.url(), wait=60.0), make_context(tmp_path, SystemClock()))
    told, errors, stop = [], [], threading.Event()

    def putter():
        while not stop.is_set():
            identity = new_id()
            try:
                (number,) = storage.inbox.put(CHANNEL, 5, SENDER, [job(id=identity)])
            except StoreError as error:
                errors.append(error)
            else:
                told.append((number, identity))

    def wait_for(more):
        until, aim = time.monotonic() + 90, len(told) + more
        while len(told) < aim:
            assert time.monotonic() < until, errors[-1:]
            time.sleep(0.005)

    threads = [threading.Thread(target=putter) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        stack.callback(storage.close)
        stack.callback(lambda: [thread.join(100) for thread in threads])
        stack.callback(stop.set)
        for thread in threads:
            thread.start()
        for _ in range(3):
            wait_for(20)
            HURTS[hurt](own_postgres)
        wait_for(20)
        stop.set()
        for thread in threads:
            thread.join(100)
        assert errors == []
        found, after = [], 0
        while page := storage.inbox.scan(Selection(), after, 1000):
            found += [(info.number, info.id) for info in page]
            after = page[-1].number
        assert found == sorted(told)
