"""The session whose life is the life of a process's consumers.

Owns one connection, opened with the first consumer, that does nothing but hold an advisory lock for each: class, the
table `in_consumer`; number, the consumer's. And a thread that sleeps until the server closes it: then it is opened anew
at once, and the consumers take their locks again before anybody takes them for dead. Whoever was taken for dead in
between has lost its leases (their tokens are stale) and goes on under a new number. Must not know messages.

Through a pooler that gives each transaction another session such a lock would hold nothing: that is refused.
"""

import contextlib
import select
import threading

import psycopg
from psycopg.pq import ConnStatus

from dropr_core.errors import Closed, DroprError, StoreError
from dropr_core.system.wake_up import WakeUp
from dropr_storage_postgres.engine.connection import Backend, Connection
from dropr_storage_postgres.engine.engine import Engine
from dropr_storage_postgres.engine.errors import translate
from dropr_storage_postgres.engine.sessions import END

NEW = "SELECT nextval('in_consumer_number')::integer"
LOCK = "SELECT pg_advisory_lock('in_consumer'::regclass::oid::integer, %b::integer)"
UNLOCK = "SELECT pg_advisory_unlock('in_consumer'::regclass::oid::integer, %b::integer)"
ENROL = "INSERT INTO in_consumer(consumer, name, machine) VALUES (%b::integer, %b, %b)"
KNOWN = "UPDATE in_consumer SET since = clock_timestamp() WHERE consumer = %b::integer AND name = %b RETURNING 1"
LEAVE = "SELECT in_leave(%b::integer)"
PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries to open it anew, while the server is away."""


class LockSession:
    """One for each process that consumes."""

    def __init__(self, engine: Engine, machine: str) -> None:
        self._engine, self._machine = engine, machine
        self._mutex = threading.RLock()
        self._numbers: dict[str, int] = {}
        self._connection: Connection | None = None
        self.backend = Backend(0, "")
        self._wake: WakeUp | None = None
        self._closed = False

    def enrol(self, name: str) -> None:
        """A new consumer. Raises StoreError."""
        with self._mutex:
            self._use()
            try:
                self._numbers[name] = self._number(name)
            except psycopg.Error as error:
                self._reopen(error)
                self._numbers[name] = self._number(name)

    def number(self, name: str) -> int:
        """That of a consumer. Raises Closed if it left."""
        try:
            return self._numbers[name]
        except KeyError:
            raise Closed(f"consumer {name} was retired; register a new one") from None

    def recover(self, name: str, number: int) -> None:
        """A claim under this number met no lock: the session is lost, whether it looks so from here or not."""
        with self._mutex:
            if self._numbers.get(name) == number:
                self._reopen(None)

    def leave(self, name: str) -> None:
        """Give up a consumer's lock; its row goes too unless it has leases. Safe twice."""
        with self._mutex:
            number = self._numbers.pop(name, None)
            if number is None or self._connection is None or self._engine.guard.forked:
                return
            with contextlib.suppress(psycopg.Error):  # without its session it is as good as gone
                self._connection.execute(LEAVE, (number,))

    def close(self) -> None:
        """End it; safe twice."""
        if self._engine.guard.forked:
            return
        with self._mutex:
            self._closed = True
            self._numbers.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._wake is not None:
                self._wake.wake()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _use(self) -> Connection:
        if self._closed:
            raise Closed(f"{self._engine.name} was closed")
        if self._connection is None:
            try:
                self._connection, self.backend = self._engine.opener.open(durable=False, idle_session_timeout="0")
                check_pooling(self._connection, self.backend, self._engine)
            except psycopg.Error as error:
                raise translate(error, self._engine.name) from error
            if self._wake is None:
                self._wake = WakeUp()
                threading.Thread(target=self._watch, args=(self._wake,), name="dropr-consumers", daemon=True).start()
            else:
                self._wake.wake()
        return self._connection

    def _number(self, name: str) -> int:
        """A new number for a consumer, its lock held before anybody can see it."""
        connection = self._use()
        row = connection.execute(NEW).fetchone()
        assert row is not None
        connection.execute(LOCK, row)
        connection.execute(ENROL, (*row, name, self._machine))
        return int(row[0])

    def _reopen(self, error: Exception | None) -> None:
        """Take a new session, and every lock again. Raises StoreError while the server is away."""
        old, self._connection = self._connection, None
        if old is not None:
            old.close()
        connection, backend = None, self.backend
        try:
            connection = self._use()
            # It may live on at the server's end of a broken line, and our locks with it.
            connection.execute(END, (backend.pid, backend.start))
            lost = 0
            for name, number in list(self._numbers.items()):
                connection.execute(LOCK, (number,))
                if not connection.execute(KNOWN, (number, name)).fetchall():
                    connection.execute(UNLOCK, (number,))
                    self._numbers[name] = self._number(name)
                    lost += 1
        except psycopg.Error as another:
            if connection is not None:
                connection.close()
            self._connection = None
            raise translate(another, self._engine.name) from another
        if self._numbers:
            self._engine.context.log.warning(
                "%s: the session of this process's consumers was lost%s and is there again; %s",
                self._engine.name, f" ({' '.join(str(error).split())})" if error else "",
                f"{lost} of {len(self._numbers)} had been taken for dead, and what they held is given out again"
                if lost else "nobody had taken them for dead, and they keep what they hold",
            )  # fmt: skip

    def _watch(self, wake: WakeUp) -> None:
        """Sleep until the server closes the session; then open it anew."""
        try:
            while not self._closed:
                with self._mutex:
                    connection = self._connection
                    if connection is not None and _ended(connection):
                        self._connection = None
                        connection.close()
                        connection = None
                    wanted = connection is None and bool(self._numbers) and not self._closed
                if wanted:
                    self._come_back()
                    continue
                sockets = [wake.fileno()] if connection is None else [wake.fileno(), connection.pgconn.socket]
                ready, _, _ = select.select(sockets, [], [])
                if wake.fileno() in ready:
                    wake.drain()
        except (OSError, ValueError):
            if not self._closed:
                self._engine.context.log.exception("%s: the session of the consumers is not watched", self._engine.name)
        finally:
            with self._mutex:
                self._wake = None
                wake.close()

    def _come_back(self) -> None:
        for tries in range(1_000_000):
            if self._closed or self._engine.guard.closed:
                return
            try:
                with self._mutex:
                    if self._connection is None:
                        self._reopen(None)
            except DroprError:
                threading.Event().wait(PAUSES[min(tries, len(PAUSES) - 1)])
            else:
                return


def _ended(connection: Connection) -> bool:
    """Whether the server closed it. Nobody else may use it meanwhile."""
    if connection.closed:
        return True
    try:
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status == ConnStatus.BAD


def check_pooling(connection: Connection, backend: Backend, engine: Engine) -> None:
    """Raise StoreError if this "session" is none: a pooler between us and the server lends it by the transaction.

    A pooler gives its clients a process number of its own. If it pools by session, two clients have two processes of
    the server; if by transaction, the second one is served by the process that the first one believes to have.
    """
    if connection.info.backend_pid == backend.pid:
        return
    other, its = engine.opener.open(durable=False)
    try:
        pids = {connection.execute("SELECT pg_backend_pid()").fetchall()[0][0] for _ in range(3)}
        if pids != {backend.pid} or its.pid in pids:
            connection.close()
            raise StoreError(
                f"{engine.name}: there is a pooler before the server that pools by transaction (pgbouncer: "
                "pool_mode=transaction): leases cannot live on it, since they live as long as a session; give dropr "
                "the address of the server itself, or a pool with pool_mode=session"
            )
    finally:
        other.close()
