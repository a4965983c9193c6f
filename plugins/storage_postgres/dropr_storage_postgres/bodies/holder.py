"""What keeps the body of a living writer from the sweep: an advisory lock of the database.

Owns the one session in which a process holds the locks of all bodies that it writes. The locks go when the session
goes: with the process, with the machine, or with the line. So who gives one back is told whether it was held all the
time. Must not know what a body is.
"""

import threading
import time

import psycopg

from dropr_core.errors import Closed
from dropr_storage_postgres.engine.connection import Connection, Opener
from dropr_storage_postgres.engine.errors import StoreUnreachable, translate
from dropr_storage_postgres.engine.sessions import Outage


class Holder:
    """The locks of one process. Safe from many threads."""

    def __init__(self, opener: Opener, outage: Outage) -> None:
        self._opener, self._outage, self._where = opener, outage, outage.where
        self._mutex = threading.Lock()
        self._connection: Connection | None = None
        self._generation = 0
        self._closed = False

    def take(self, number: int) -> int:
        """Hold the lock ``number``; returns what `give` wants to know. Raises StoreError."""
        with self._mutex:
            while True:
                fresh = self._connection is None
                try:
                    self._open().execute("SELECT pg_advisory_lock(%s)", (number,))
                except psycopg.Error as error:
                    self._drop()
                    translated = translate(error, self._where)
                    if not isinstance(translated, StoreUnreachable):
                        raise translated from error
                    if fresh:  # an old session may have broken while it was idle: that says nothing of the server
                        time.sleep(self._outage.missed(translated))
                else:
                    self._outage.over()
                    return self._generation

    def give(self, number: int, generation: int) -> bool:
        """Let go of it; whether it was held all the time."""
        with self._mutex:
            if self._connection is None or generation != self._generation:
                return False
            try:
                row = self._connection.execute("SELECT pg_advisory_unlock(%s)", (number,)).fetchone()
            except psycopg.Error:
                self._drop()
                return False
            return row is not None and bool(row[0])

    def _open(self) -> Connection:
        if self._closed:
            raise Closed(f"{self._where} was closed")
        if self._connection is None:
            self._connection, _ = self._opener.open(durable=False)
            self._generation += 1
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the session; safe twice."""
        with self._mutex:
            self._closed = True
            self._drop()
