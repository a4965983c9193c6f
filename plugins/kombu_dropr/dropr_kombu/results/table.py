"""What is known of tasks at this node: a small SQLite file beside the store.

Owns the file: results and groups by key, and the parts of chords. No connection is open while the process forks: SQLite
must not be carried over a fork. Must not know Celery.
"""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from dropr_core.errors import StoreError, StoreReadOnly, WriteFailed
from dropr_core.system.ownership import open_private

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, final INTEGER NOT NULL, until REAL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_until ON entries (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS parts (chord TEXT, part TEXT, value BLOB NOT NULL, until REAL, PRIMARY KEY (chord, part))
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parts_until ON parts (until) WHERE until IS NOT NULL;
CREATE TABLE IF NOT EXISTS sizes (chord TEXT PRIMARY KEY, size INTEGER NOT NULL, until REAL) WITHOUT ROWID;
"""
PATIENCE = 30.0
"""Seconds to wait for another process that writes."""


class Entry(NamedTuple):
    """Something to keep."""

    key: str
    value: bytes
    final: bool
    """Whether nothing changes it any more, as a success."""
    until: float | None
    """Wall time at which it is forgotten; None: never."""


class Table:
    """The table of one node. Safe to use from many threads, many processes and over a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._writes = 0
        _OPEN.add(self)

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept under these keys. Raises StoreError."""
        now, found = time.time(), dict[str, bytes]()

        def read(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    f"SELECT key, value FROM entries WHERE key IN ({marks}) AND (until IS NULL OR until > ?)",  # noqa: S608 - marks alone
                    (*part, now),
                )
                found.update({key: bytes(value) for key, value in rows})

        self._do(read)
        return found

    def put(self, entries: Iterable[Entry]) -> None:
        """Keep these, durably; what is final stays as it is. Raises StoreError."""
        rows = list(entries)
        self._change(
            lambda connection: connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
                "final = excluded.final, until = excluded.until WHERE NOT final",
                rows,
            )
        )

    def delete(self, key: str) -> None:
        """Forget one. Raises StoreError."""
        self._change(lambda connection: connection.execute("DELETE FROM entries WHERE key = ?", (key,)))

    def expect(self, chord: str, size: int, until: float | None) -> None:
        """How many parts a chord has. Raises StoreError."""
        self._change(
            lambda connection: connection.execute("INSERT OR REPLACE INTO sizes VALUES (?, ?, ?)", (chord, size, until))
        )

    def add_part(self, chord: str, part: str, value: bytes, until: float | None) -> list[bytes] | None:
        """One more part of a chord; all of them in order, to one caller alone, when none is missing any more. Raises
        StoreError.
        """

        def add(connection: sqlite3.Connection) -> list[bytes] | None:
            connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?)", (chord, part, value, until))
            size = connection.execute("SELECT size FROM sizes WHERE chord = ?", (chord,)).fetchone()
            rows = connection.execute("SELECT value FROM parts WHERE chord = ? ORDER BY part", (chord,)).fetchall()
            if size is None or len(rows) < size[0]:
                return None
            connection.execute("DELETE FROM parts WHERE chord = ?", (chord,))
            connection.execute("DELETE FROM sizes WHERE chord = ?", (chord,))
            return [bytes(row[0]) for row in rows]

        return self._change(add)

    def clean(self) -> None:
        """Forget what is past its time. Raises StoreError."""
        self._change(self._forget)

    def _forget(self, connection: sqlite3.Connection) -> None:
        for table in ("entries", "parts", "sizes"):
            connection.execute(f"DELETE FROM {table} WHERE until IS NOT NULL AND until < ?", (time.time(),))  # noqa: S608

    def _change(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def change(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = job(connection)
                self._writes += 1
                if self._writes % 1000 == 1:
                    self._forget(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._do(change)

    def _do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                return job(self._connection)
            except sqlite3.OperationalError as error:
                kind = StoreReadOnly if "readonly" in str(error) else WriteFailed
                raise kind(f"{self._path}: results cannot be kept: {error}") from error
            except (sqlite3.Error, OSError) as error:
                raise StoreError(
                    f"{self._path}: the table of results is damaged: {error}; remove it: results alone are in it"
                ) from error

    def _open(self) -> sqlite3.Connection:
        os.close(open_private(self._path, os.O_CREAT | os.O_RDWR))
        connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the file; it is opened again when it is needed. Safe twice."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def pause(self) -> None:
        """Before a fork: nothing is open and nobody is at work, until `resume`."""
        self._lock.acquire()
        self.close()

    def resume(self) -> None:
        """After a fork, in the parent."""
        self._lock.release()

    def begin_anew(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.RLock()
        self._pid = os.getpid()


# Forks are the process's; the set is weak, and keeps no table alive.
_OPEN: "weakref.WeakSet[Table]" = weakref.WeakSet()
_paused: list[Table] = []


def _before_fork() -> None:
    _paused[:] = list(_OPEN)
    for table in _paused:
        table.pause()


def _after_fork(end: Callable[[Table], None]) -> None:
    tables, _paused[:] = list(_paused), []
    for table in tables:
        end(table)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(Table.resume),
    after_in_child=lambda: _after_fork(Table.begin_anew),
)
