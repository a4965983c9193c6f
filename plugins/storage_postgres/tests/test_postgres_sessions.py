"""The session that keeps the consumers of a process alive."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage
from dropr_storage_postgres.engine.connection import Backend
from dropr_storage_postgres.inbox.lock_session import check_pooling

from dropr_core.contracts.storage import Ack, Release
from dropr_core.errors import StoreError
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import Source, Worker, make_context


class Pooled:
    """A connection through a pooler, which says which of the server's processes it has each time."""

    def __init__(self, told, *served):
        self.info, self.closed = SimpleNamespace(backend_pid=told), False
        self._served = list(served)

    def execute(self, _):
        return SimpleNamespace(fetchall=lambda: [(self._served.pop(0),)])

    def close(self):
        self.closed = True


def pooled_engine(pid):
    """An engine whose next session is served by this process of the server."""
    opener = SimpleNamespace(open=lambda **_: (Pooled(2, pid), Backend(pid, "")))
    return SimpleNamespace(name="the store", opener=opener)


@pytest.mark.parametrize(("served", "other"), [((10, 10, 10), 10), ((10, 11, 10), 12), ((11, 11, 11), 12)])
def test_a_pooler_by_transaction_is_refused(served, other):
    """A session that is another one of the server's each time, or is shared, holds no locks: that is said."""
    connection = Pooled(1, *served)
    with pytest.raises(StoreError, match="pools by transaction"):
        check_pooling(connection, Backend(10, ""), pooled_engine(other))
    assert connection.closed


def test_a_pooler_by_session_and_none_at_all_will_do():
    """With a process of the server for each of its clients a pooler is as good as none."""
    check_pooling(Pooled(1, 10, 10, 10), Backend(10, ""), pooled_engine(11))
    check_pooling(Pooled(10), Backend(10, ""), pooled_engine(10))


@pytest.fixture
def store(postgres_schema, tmp_path):
    """A store on a real server, and what ends one of its sessions."""
    url, schema = postgres_schema
    storage = dropr_storage(Options(url=url, schema=schema), make_context(tmp_path, SystemClock()))
    yield storage
    storage.close()


def test_a_session_that_ends_comes_back_by_itself(store, postgres_server):
    """The server ends it while nobody calls anything: it is there again, holds the locks, and the leases hold."""
    Source(store.inbox).fill(2)
    worker = Worker(store.inbox)
    claim = worker.one()
    before = store.inbox.consumers.session.backend
    with postgres_server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 30000)", (before.pid,))
    for _ in range(3000):
        if store.inbox.consumers.session.backend != before and store.inbox.consumers.lives(worker.name):
            break
        threading.Event().wait(0.01)
    assert store.inbox.consumers.session.backend != before
    assert store.inbox.holds(claim)
    assert store.inbox.settle([Ack(claim)]) == [True]
    assert len(worker.claim()) == 1


def test_a_server_that_restarts_ends_no_lease(own_postgres, tmp_path):
    """Claims and settlements go on after a restart, and what was held before is held still."""
    storage = dropr_storage(Options(url=own_postgres.url(), schema="s"), make_context(tmp_path, SystemClock()))
    try:
        Source(storage.inbox).fill(3)
        worker = Worker(storage.inbox)
        held = worker.one()
        own_postgres.restart()
        assert storage.inbox.reap({})[0] == []
        assert storage.inbox.settle([Ack(held)]) == [True]
        assert storage.inbox.acknowledge(worker.claim()) == [True, True]
    finally:
        storage.close()


def test_a_stale_token_stays_stale_though_the_session_broke(own_postgres, tmp_path):
    """A settlement whose session is gone is done again; a lease that had ended before is not taken for one it ended."""
    one, two = (
        dropr_storage(Options(url=own_postgres.url(), schema="s"), make_context(tmp_path / name, SystemClock()))
        for name in ("a", "b")
        if (tmp_path / name).mkdir() is None
    )
    try:
        Source(one.inbox).fill(3)
        stale, held, more = Worker(one.inbox).claim(3)
        assert two.inbox.settle([Release(stale)]) == [True]
        own_postgres.restart()
        assert one.inbox.acknowledge([stale, held]) == [False, True]
        own_postgres.restart()
        assert one.inbox.settle([Ack(stale), Ack(more, b"result")]) == [False, True]
        assert [claim.id for claim in Worker(two.inbox).claim()] == [stale.id]
    finally:
        one.close()
        two.close()
