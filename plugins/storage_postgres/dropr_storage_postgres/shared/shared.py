"""What the machines of one store have in common, in PostgreSQL.

Owns the documents, and which sessions there are: none before something needs one. Must not know what a document says.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Collection

import psycopg

from dropr_core.contracts.context import Context
from dropr_core.contracts.shared import MAX_DOCUMENT, Document, Listening, Shared
from dropr_core.errors import Closed, DroprError, StoreReadOnly, TooBig
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Opener
from dropr_storage_postgres.engine.errors import translate
from dropr_storage_postgres.engine.sessions import Outage, Session
from dropr_storage_postgres.engine.times import Times
from dropr_storage_postgres.engine.types import Connection
from dropr_storage_postgres.shared.election import Held, session, stand
from dropr_storage_postgres.shared.wakeups import Listener, Sender, channel_of

_LOAD = "SELECT data, version FROM document WHERE name = %s"
_NAMES = 'SELECT name FROM document WHERE starts_with(name, %s) ORDER BY name COLLATE "C"'
_REMOVE = "DELETE FROM document WHERE name = %s AND version = %s RETURNING 1"
_MAKE = (
    "INSERT INTO document(name, version, data) VALUES (%s, nextval('document_version'), %s) ON CONFLICT DO NOTHING "
    "RETURNING 1"
)
_CHANGE = (
    "UPDATE document SET data = %s, version = nextval('document_version') WHERE name = %s AND version = %s RETURNING 1"
)


def _nobody() -> None:
    """Nobody needs to be told."""


class PostgresShared(Shared):
    """That of one store, as one process has it."""

    def __init__(self, place: Place, times: Times, context: Context) -> None:
        self._place, self._times, self._context = place, times, context
        self._where = f"{place.name} (shared)"
        self._pid, self._closed = os.getpid(), False
        self._opener = Opener(place, times, context.clock.now, f"{context.node} shared")
        outage = Outage(self._where, place.wait, context.log)
        self._session = Session(self._opener, outage, {"durable": True, "read_only": context.read_only})
        mark, channel = f"{os.urandom(6).hex()}:", channel_of(place.schema)
        self._sender = Sender(Opener(place, times, context.clock.now, f"{context.node} notify"), channel, mark)
        listening = Opener(place, times, context.clock.now, f"{context.node} listen")
        self._listener = Listener(listening, channel, mark)
        self._electing = Opener(place, times, context.clock.now, f"{context.node} election")
        self._mutex = threading.Lock()
        self._candidate: Connection | None = None
        """A session that has stood in vain, for the next time."""
        self._held: set[Held] = set()

    # ── documents ────────────────────────────────────────────────────────────────────────────────

    def load(self, name: str) -> Document | None:
        """See `Shared`."""
        self._check()
        rows = self._session.statement(_LOAD, (name,))
        return Document(bytes(rows[0][0]), rows[0][1]) if rows else None

    def replace(self, name: str, data: bytes | None, version: int) -> bool:
        """See `Shared`."""
        self._check(write=True)
        if data is not None and len(data) > MAX_DOCUMENT:
            raise TooBig(f"document {name}: {len(data)} bytes; the limit is {MAX_DOCUMENT}")

        def job(connection: Connection) -> bool:
            if data is None:
                cursor = connection.execute(_REMOVE, (name, version))
            elif version == 0:
                cursor = connection.execute(_MAKE, (name, data))
            else:
                cursor = connection.execute(_CHANGE, (data, name, version))
            return bool(cursor.fetchall())

        return self._session.transact(job)

    def names(self, prefix: str) -> list[str]:
        """See `Shared`."""
        self._check()
        return [name for (name,) in self._session.statement(_NAMES, (prefix,))]

    # ── time and elections ───────────────────────────────────────────────────────────────────────

    def now(self) -> float:
        """See `Shared`."""
        return self._times.now()

    def elect(self, name: str, lost: Callable[[], None] = _nobody) -> Held | None:
        """See `Shared`."""
        self._check(write=True)
        with self._mutex:
            connection = self._stand(name)
            if connection is None:
                return None
            held = Held(connection, lost, self._held.discard)
            self._held.add(held)
            return held

    def _stand(self, name: str) -> Connection | None:
        """A session that has the lock; None: somebody else has it. Raises StoreError."""
        kept, self._candidate = self._candidate, None
        if kept is not None:
            try:
                return self._try(kept, name)
            except (psycopg.Error, DroprError):  # it broke while it rested
                _close(kept)
        fresh: Connection | None = None
        try:
            fresh = session(self._electing)
            return self._try(fresh, name)
        except (psycopg.Error, DroprError) as error:
            if fresh is not None:
                _close(fresh)
            raise translate(error, self._where) from error

    def _try(self, connection: Connection, name: str) -> Connection | None:
        if stand(connection, self._place.schema, name):
            return connection
        self._candidate = connection
        return None

    # ── wake-ups ─────────────────────────────────────────────────────────────────────────────────

    def notify(self, topics: Collection[str]) -> None:
        """See `Shared`."""
        if topics and not self._closed and os.getpid() == self._pid and not self._context.read_only:
            self._sender.notify(topics)

    def listen(self, heard: Callable[[str | None], None]) -> Listening:
        """See `Shared`."""
        self._check()
        return self._listener.add(heard)

    def close(self) -> None:
        """Let go of every session; safe twice."""
        if self._closed or os.getpid() != self._pid:
            self._closed = True
            return
        self._closed = True
        self._sender.close()
        self._listener.close()
        for held in list(self._held):
            held.release()
        with self._mutex:
            candidate, self._candidate = self._candidate, None
        if candidate is not None:
            candidate.close()
        self._session.close()

    def _check(self, *, write: bool = False) -> None:
        if self._closed or os.getpid() != self._pid:
            raise Closed(f"{self._where} was closed, or opened before a fork; open it again")
        if write and self._context.read_only:
            raise StoreReadOnly(f"{self._where} was opened only to look at it")


def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        connection.close()


__all__ = ["PostgresShared"]
