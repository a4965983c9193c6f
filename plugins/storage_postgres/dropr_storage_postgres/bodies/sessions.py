"""Connections that only bodies use: a piece of megabytes on its way holds up no small message.

Owns how many there are, and who uses which. Each is opened when it is first needed. What is done with a body may be
done twice: so where nobody can say whether a commit went through, it is done again. Must not know tables.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import LifoQueue
from typing import Any, TypeVar

from dropr_core.contracts.context import Context
from dropr_core.storage_kit.guard import Guard
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Connection, Opener
from dropr_storage_postgres.engine.sessions import InDoubt, Outage, Session
from dropr_storage_postgres.engine.times import Times

T = TypeVar("T")

SESSIONS = 3
"""That a process has for pieces; who needs more waits until one is free. The last one opened is used first."""


class BodySessions:
    """The connections of one process for bodies. Safe from many threads."""

    def __init__(self, place: Place, times: Times, context: Context) -> None:
        self.name = f"{place.name} (bodies)"
        self.opener = Opener(place, times, context.clock.now, f"{context.node} bodies")
        self.outage = Outage(self.name, place.wait, context.log)
        self._guard = Guard(self.name, read_only=context.read_only)
        self._durable = Session(self.opener, self.outage, {"durable": True})
        self._all = [
            Session(self.opener, self.outage, {"durable": False, "read_only": context.read_only})
            for _ in range(SESSIONS)
        ]
        self._free: LifoQueue[Session] = LifoQueue()
        for session in reversed(self._all):
            self._free.put(session)

    def durable(self, job: Callable[[Connection], T]) -> T:
        """Run ``job`` in a transaction that is on the server's stable storage on return, with all that was committed
        before it. Raises StoreError.
        """
        self._guard.enter(write=True)
        return _surely(self._durable, job)

    def relaxed(self, job: Callable[[Connection], T]) -> T:
        """Run ``job`` in a transaction that a crash of the server may undo until the next `durable` one."""
        self._guard.enter(write=True)
        with self._one() as session:
            return _surely(session, job)

    def read(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which only reads."""
        self._guard.enter(write=False)
        with self._one() as session:
            return session.look(job)

    def query(self, statement: str, values: Any = ()) -> list[Any]:
        """The rows of one statement that only reads, or may be done twice."""
        self._guard.enter(write=False)
        with self._one() as session:
            return session.statement(statement, values)

    @contextmanager
    def _one(self) -> Iterator[Session]:
        session = self._free.get()
        try:
            yield session
        finally:
            self._free.put(session)

    def close(self) -> None:
        """Close them; safe twice."""
        self._guard.closed = True
        for session in (self._durable, *self._all):
            session.close()


def _surely(session: Session, job: Callable[[Connection], T]) -> T:
    try:
        return session.transact(job)
    except InDoubt:
        return session.transact(job)
