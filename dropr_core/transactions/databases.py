"""Connections of our own to a database of the user's: for the daemon, for consumers, for the command line.

Owns how they are opened, their transactions, how they wait, and their errors in dropr's words. SQLite is never made: a
wrong path must not become an empty database. Must not know tables. A link is used by one thread.
"""

import contextlib
import os
import select
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dropr_core.config.outboxes import Database
from dropr_core.errors import PluginError, StoreBusy, StoreError
from dropr_core.system.loading import unforked
from dropr_core.system.os_errors import store_errors
from dropr_core.transactions.statements import Kind, Plan, Rows, Statement, T, is_missing_table, numbered

CONNECT = 10
"""Seconds until a server that does not answer is given up."""
SILENCE = 20
"""Seconds after which a server that acknowledges nothing counts as gone."""
LOCK = 5.0
"""Seconds to wait for a lock that somebody else holds."""


class Link(ABC):
    """An open connection, without a transaction unless within `transaction`."""

    kind: Kind

    def __init__(self, database: Database) -> None:
        self.database = database

    @abstractmethod
    def run(self, statement: Statement) -> Rows:
        """Execute one statement. Raises StoreError."""

    @abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """A transaction around the block, rolled back if it raises. Raises StoreError."""

    @abstractmethod
    def listen(self, channel: str) -> None:
        """Be woken in `wait` by notifications, where the database has such. Raises StoreError."""

    @abstractmethod
    def wait(self, readable: Sequence[int], seconds: float) -> list[int]:
        """Sleep until one of these descriptors can be read, a notification comes, or so many seconds have passed.
        Which descriptors can be read. Raises StoreError if the connection is gone.
        """

    @abstractmethod
    def changed(self) -> bool:
        """Whether something may have changed since the last call; cheap. Raises StoreError."""

    def harden(self) -> None:
        """Whatever this link has seen as committed survives a crash of the server from now on. Raises StoreError."""

    @abstractmethod
    def close(self) -> None:
        """Safe twice."""

    def carry_out(self, plan: Plan[T]) -> T:
        """Execute what a plan yields. Raises StoreError."""
        try:
            statement = next(plan)
            while True:
                statement = plan.send(self.run(statement))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _told(self, error: Exception) -> StoreError:
        text = " ".join(str(error).split()) or type(error).__name__
        hint = "; 'dropr outbox install' makes it" if is_missing_table(error) else ""
        busy = "lock" in text or "busy" in text
        return (StoreBusy if busy else StoreError)(f"{self.database}: {text}{hint}")


def connect(database: Database, node: str) -> Link:
    """Open a link. Raises StoreError, PluginError if psycopg is not installed."""
    return PostgresLink(database, node) if database.kind == "postgresql" else SqliteLink(database)


class SqliteLink(Link):
    """To an SQLite file of the user's, in whatever mode he keeps it."""

    kind: Kind = "sqlite"

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        path = Path(database.name)
        if not path.exists():
            raise StoreError(f"{database}: there is no such file")
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=LOCK,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._told(error) from error
        self._version = -1

    def run(self, statement: Statement) -> Rows:
        """See above."""
        try:
            return self._connection.execute(statement.sql, statement.parameters).fetchall()
        except sqlite3.Error as error:
            raise self._told(error) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """It waits for whoever writes, and nobody else writes until its end."""
        self.run(Statement("BEGIN IMMEDIATE"))
        try:
            yield
            self.run(Statement("COMMIT"))
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            raise

    def listen(self, channel: str) -> None:
        """There is no such thing."""

    def wait(self, readable: Sequence[int], seconds: float) -> list[int]:
        """See above."""
        return _readable(readable, seconds)

    def harden(self) -> None:
        """With ``PRAGMA synchronous = NORMAL`` and a write-ahead log commits are flushed later; only the log is opened,
        for to close another descriptor of the database would end SQLite's own locks.
        """
        with store_errors(Path(self.database.name)), contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self.database.name}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def changed(self) -> bool:
        """SQLite counts the commits of others."""
        version = self.run(Statement("PRAGMA data_version"))[0][0]
        before, self._version = self._version, int(version)
        return before != self._version

    def close(self) -> None:
        """See above."""
        self._connection.close()


class PostgresLink(Link):
    """To PostgreSQL, by psycopg 3."""

    kind: Kind = "postgresql"

    def __init__(self, database: Database, node: str) -> None:
        super().__init__(database)
        try:
            with unforked:
                import psycopg
        except ImportError:
            raise PluginError(
                "outboxes: psycopg is not installed; pip install 'dropr-core[postgresql]' brings it"
            ) from None
        self._error = psycopg.Error
        try:
            self._connection: Any = psycopg.connect(
                database.url, autocommit=True, connect_timeout=CONNECT, application_name=f"dropr {node}",
                keepalives_idle=30, keepalives_interval=10, keepalives_count=3, tcp_user_timeout=SILENCE * 1000,
            )  # fmt: skip
            # Ours are short, and see what is committed whatever the database's default is.
            self._connection.execute(f"SET lock_timeout = '{LOCK:g}s'")
            self._connection.execute("SET default_transaction_isolation = 'read committed'")
            self._connection.execute("SET synchronous_commit = on")
        except psycopg.Error as error:
            raise self._told(error) from None  # its trace may have the URL

    def run(self, statement: Statement) -> Rows:
        """See above."""
        try:
            cursor = self._connection.execute(numbered(statement.sql, "format"), statement.parameters)
            rows: Rows = cursor.fetchall() if cursor.description else []
        except self._error as error:
            raise self._told(error) from error
        return rows

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See above."""
        self.run(Statement("BEGIN"))
        try:
            yield
            self.run(Statement("COMMIT"))
        except BaseException:
            with contextlib.suppress(self._error):
                self._connection.execute("ROLLBACK")
            raise

    def listen(self, channel: str) -> None:
        """See above."""
        self.run(Statement(f'LISTEN "{channel}"'))

    def wait(self, readable: Sequence[int], seconds: float) -> list[int]:
        """What came together with the answer to another statement counts as well."""
        if self._notified():
            return _readable(readable, 0.0)
        try:
            mine = self._connection.fileno()
        except self._error as error:
            raise self._told(error) from error
        found = _readable([*readable, mine], seconds)
        if mine in found:
            self._notified()
        return [fd for fd in found if fd != mine]

    def _notified(self) -> bool:
        try:
            found = list(self._connection.notifies(timeout=0))
        except self._error as error:
            raise self._told(error) from error
        return bool(found)

    def harden(self) -> None:
        """A commit with ``synchronous_commit = off`` is seen before it is flushed. A commit of our own flushes all that
        was written before it; where everything is flushed none is needed.
        """
        if self.run(Statement("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()"))[0][0]:
            with self.transaction():  # a transaction that has written nothing would flush nothing
                self.run(Statement("SELECT pg_logical_emit_message(true, 'dropr', '')"))

    def changed(self) -> bool:
        """To ask costs as much as to look."""
        return True

    def close(self) -> None:
        """See above."""
        self._connection.close()


def _readable(fds: Sequence[int], seconds: float) -> list[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    return [fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]


__all__ = ["Link", "PostgresLink", "SqliteLink", "connect"]
