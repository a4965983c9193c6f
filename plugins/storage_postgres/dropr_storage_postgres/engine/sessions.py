"""A session that is there when it is wanted, and what becomes of a transaction whose session broke.

Owns `Session`: one connection, used by one thread at a time, replaced when it breaks; `Outage`: how long anybody waits
for a server that is away. Must not know what a transaction does.

A transaction that had not come to its COMMIT is done again: the server forgets it. Where the answer to COMMIT was lost,
the old backend is ended first, if it still lives, so that nothing can happen any more; then the server knows what
became of the transaction by its number, unless it crashed in between: it may give the number to another one then. Who
can tell by what is stored whether it was done is asked in that case (`InDoubt`).
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus

from dropr_core.errors import Closed, DroprError, WriteFailed
from dropr_storage_postgres.engine.connection import Backend, Connection, Opener
from dropr_storage_postgres.engine.errors import COLLISIONS, StoreUnreachable, is_of_the_line, translate

T = TypeVar("T")

BEGIN = b"BEGIN; SELECT pg_current_xact_id()::text"
LOOK = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BREAKS = 4
"""Sessions that one call may lose before it gives up: perhaps it is the call that kills them."""
TRIES = 10
"""How often a transaction is done again that collided with another one."""
END = (
    "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s AND "
    "usename = current_user"
)
ENDED = (pg.AdminShutdown, pg.CrashShutdown, pg.DatabaseDropped, pg.IdleInTransactionSessionTimeout)
"""What a backend says when it ends."""
_DONE = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK})


class InDoubt(WriteFailed):
    """Nobody can say whether the commit went through, but nothing happens any more."""


class Outage:
    """How long anybody waits for a server that is away: ``wait`` seconds from when it was first missed."""

    def __init__(self, where: str, wait: float, log: logging.Logger) -> None:
        self.where, self._wait, self._log = where, wait, log
        self._since: float | None = None
        self._told = False

    def missed(self, error: StoreUnreachable) -> float:
        """It is not there. Seconds until the next try; raises ``error`` when nobody waits any more."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited >= self._wait:
            if not self._told:
                self._told = True
                self._log.error("%s", error)
            raise error
        return min(0.5, 0.02 + waited / 4)

    def over(self) -> None:
        """It is there."""
        if self._since is not None:
            if self._told:
                self._log.warning("%s: the server is there again", self.where)
            self._since, self._told = None, False


class Session:
    """One connection with the server, for one thread at a time."""

    def __init__(self, opener: Opener, outage: Outage, settings: Mapping[str, Any]) -> None:
        self._opener, self._outage, self._settings = opener, outage, settings
        self._mutex = threading.Lock()
        self._connection: Connection | None = None
        self._backend = Backend(0, "")
        self._closed = False

    def transact(self, job: Callable[[Connection], T]) -> T:
        """Run ``job`` in a transaction. Raises what the job raises, and StoreError."""
        with self._mutex:
            breaks = collisions = 0
            while True:
                connection, xid = self._begin(BEGIN)
                sent = False
                try:
                    result = job(connection)
                    sent = True
                    _command(connection, b"COMMIT")
                except COLLISIONS as error:
                    collisions += 1
                    self._roll_back(connection)
                    if collisions >= TRIES:
                        raise translate(error, self._outage.where) from error
                except BaseException as error:
                    if not self._broke(connection, error):
                        self._roll_back(connection)
                        self._fail(error)
                    breaks += 1
                    if sent and self._committed(xid, error):
                        return result
                    if breaks >= BREAKS:
                        self._fail(error)
                else:
                    return result

    def look(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which only reads, on one consistent state."""
        with self._mutex:
            breaks = 0
            while True:
                connection, _ = self._begin(LOOK)
                try:
                    result = job(connection)
                    _command(connection, b"COMMIT")
                except BaseException as error:
                    broke = self._broke(connection, error)
                    if not broke:
                        self._roll_back(connection)
                    breaks += 1
                    if not broke or breaks >= BREAKS:
                        self._fail(error)
                else:
                    return result

    def statement(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """The rows of one statement in autocommit; done again if its session broke."""
        result = self.quick(lambda connection: _rows(connection.execute(statement, values)), lambda: None, again=True)
        assert result is not None
        return result

    def quick(self, job: Callable[[Connection], T], doubt: Callable[[], None], *, again: bool = False) -> T | None:
        """Run ``job``, one statement in autocommit. None, after ``doubt``, if its session broke: it may have gone
        through or not, but nothing more happens. ``again``: it is done again instead.
        """
        with self._mutex:
            breaks = collisions = 0
            while True:
                connection = self._open()
                try:
                    return job(connection)
                except COLLISIONS as error:
                    collisions += 1
                    if collisions >= TRIES:
                        raise translate(error, self._outage.where) from error
                except BaseException as error:
                    broke = self._broke(connection, error)
                    breaks += 1
                    if not broke or breaks >= BREAKS:
                        self._fail(error)
                    if not again:
                        doubt()
                        self._end_old()
                        return None

    def close(self) -> None:
        """Close it; safe twice."""
        self._closed = True  # nobody waits for the server any more
        with self._mutex:
            self._drop()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _begin(self, command: bytes) -> tuple[Connection, str]:
        """Begin a transaction; its number, if it writes. A session that broke while it was idle is replaced here."""
        for left in reversed(range(BREAKS)):
            connection = self._open()
            try:
                return connection, _command(connection, command)
            except psycopg.Error as error:
                if not self._broke(connection, error) or not left:
                    self._fail(error)
        raise AssertionError

    def _open(self) -> Connection:
        while self._connection is None:
            if self._closed:
                raise Closed(f"{self._outage.where} was closed")
            try:
                self._connection, self._backend = self._opener.open(**self._settings)
            except psycopg.Error as error:
                translated = translate(error, self._outage.where)
                if not isinstance(translated, StoreUnreachable):
                    raise translated from error
                translated.__cause__ = error
                time.sleep(self._outage.missed(translated))
            else:
                self._outage.over()
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _broke(self, connection: Connection, error: BaseException) -> bool:
        """Whether the session is gone, or of no more use; then it is given up."""
        if not isinstance(error, psycopg.Error):
            return False
        unknown = connection.info.transaction_status is TransactionStatus.UNKNOWN
        stale = isinstance(error, pg.FeatureNotSupported) and "cached plan" in str(error)  # tables were migrated
        ours = isinstance(error, psycopg.InterfaceError) or is_of_the_line(error)
        if connection.closed or unknown or stale or ours or isinstance(error, ENDED):
            self._drop()
            return True
        return False

    def _roll_back(self, connection: Connection) -> None:
        try:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                _command(connection, b"ROLLBACK")
        except psycopg.Error:
            self._drop()

    def _fail(self, error: BaseException) -> NoReturn:
        if isinstance(error, psycopg.Error):
            raise translate(error, self._outage.where) from error
        raise error

    def _end_old(self) -> None:
        """End the backend of the session that broke, and wait until it has ended. Raises WriteFailed if that fails."""
        old, problem = self._backend, BaseException()
        for _ in range(BREAKS):
            connection = None
            try:
                connection = self._open()
                if all(ended for (ended,) in connection.execute(END, (old.pid, old.start)).fetchall()):
                    return
            except DroprError as error:
                problem = error
                break
            except psycopg.Error as error:
                problem = error
                if connection is None or not self._broke(connection, error):
                    break
        raise self._unknown(problem) from problem

    def _committed(self, xid: str, error: BaseException) -> bool:
        """Whether a transaction went through whose answer was lost. Raises WriteFailed if nobody knows."""
        try:
            era = self._backend.era
            self._end_old()
            connection = self._open()
            if not era or era != self._backend.era:
                raise self._unknown(error) from error
            rows = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (xid,)).fetchall()
            status = rows[0][0]
        except WriteFailed:
            raise
        except (psycopg.Error, DroprError) as another:
            raise self._unknown(another) from error
        if status not in {"committed", "aborted"}:
            raise self._unknown(error) from error
        return bool(status == "committed")

    def _unknown(self, error: BaseException) -> InDoubt:
        return InDoubt(
            f"{self._outage.where}: the session broke during a commit and the server cannot say what became of it "
            f"({error}): it may be stored or not; nothing was promised"
        )


def _command(connection: Connection, command: bytes) -> str:
    """Run commands without parameters, in one way there and back; the last one's first value."""
    result = connection.pgconn.exec_(command)
    if result.status not in _DONE:
        raise error_from_result(result, encoding="utf-8")
    value = result.get_value(0, 0) if result.ntuples else None
    return "" if value is None else value.decode()


def _rows(cursor: psycopg.Cursor[Any]) -> list[Any]:
    return cursor.fetchall() if cursor.description is not None else []
