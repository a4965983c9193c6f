"""Transactions of one half of a store: durable ones, relaxed ones, and looks.

Owns when a session is opened, used, given up and taken anew. Must not know tables.

* `write`: on the server's stable storage when it returns (group commit).
* `relaxed`: survives this process at once, and the server's crash after the flush interval (synchronous_commit=off).
* `read`: one consistent state.

Each of the three has a session of its own, opened with the first call. A session that breaks is replaced within the
call: what it had not committed is done again, and where it is unknown whether it had, the server is asked
(`sessions.py`). While the server is away a call waits for it (`wait`), once; after that calls fail at once until it is
back, with one line in the log for each of the two changes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dropr_core.contracts.context import Context
from dropr_core.errors import DroprError, QueueFull, StoreCorrupt, WriteFailed
from dropr_core.storage_kit.events import StoreEvents
from dropr_core.storage_kit.group_commit import BatchedJob, GroupCommit, run_together
from dropr_core.storage_kit.guard import Guard
from dropr_core.system.flusher import Flusher
from dropr_storage_postgres.engine.address import Place
from dropr_storage_postgres.engine.connection import Connection, Opener
from dropr_storage_postgres.engine.sessions import InDoubt, Outage, Session
from dropr_storage_postgres.engine.times import Times

T = TypeVar("T")

FLUSH = "SELECT pg_logical_emit_message(true, 'dropr', '')"
"""The least that makes a commit wait for the disk, and with it for all before it."""


class QuickJob(BatchedJob[Connection]):
    """A job that is one statement when it has no company: ``quick`` runs it in autocommit, one way there and back.

    ``quick(connection)`` returns None if it did nothing because it takes more than that. If it is unknown whether it
    went through, ``run`` is called instead, after ``doubt`` (what is stored by then is decided).
    """

    __slots__ = ("doubt", "quick")

    def __init__(
        self,
        run: Callable[[Connection, list[Any]], list[Any]],
        items: Any,
        quick: Callable[[Connection], Any],
        doubt: Callable[[], None],
    ) -> None:
        super().__init__(run, items)
        self.quick, self.doubt = quick, doubt


class Engine:
    """Transactions of one half."""

    def __init__(self, place: Place, half: str, times: Times, context: Context) -> None:
        self.place, self.times, self.context = place, times, context
        self.name = f"{place.name} ({half})"
        self.guard = Guard(self.name, read_only=context.read_only)
        self._events = StoreEvents(context, context.data / half)
        opener = self.opener = Opener(place, times, context.clock.now, f"{context.node} {half}")
        outage = Outage(self.name, place.wait, context.log)
        self._durable = Session(opener, outage, {"durable": True})
        self._relaxed = Session(opener, outage, {"durable": False})
        self._reader = Session(opener, outage, {"durable": False, "read_only": True})
        self._group: GroupCommit[Connection] = GroupCommit(self._commit)
        self.flusher = Flusher(place.flush, self.flush, context.log, f"dropr-{half}-flush")

    # ── the three kinds of work ──────────────────────────────────────────────────────────────────

    def write(self, job: Callable[[Connection], T], *, stored: Callable[[T], bool] | None = None) -> T:
        """Run ``job`` in a transaction that is on the server's stable storage on return.

        Several threads share one, so that a job may run in company, and more than once. Where the server crashed
        during the commit and only the job could tell whether it went through, a `QuickJob` is asked, all others fail
        with WriteFailed. ``stored``: whether the job, by its result, changed something; its commit was a flush then,
        also of what was relaxed before, which needs no other. Raises StoreError.
        """
        self.guard.enter(write=True)
        begun = time.monotonic()
        result = self._group.run(job)
        if stored is not None and stored(result):
            self.flusher.covered(begun)
        return result

    def relaxed(self, job: Callable[[Connection], T], *, mark: bool = True) -> T:
        """Run ``job`` in a transaction that a crash of the server within the flush interval may undo.

        Without ``mark`` no flush is asked for: it may be undone until the next one. A job may have been done already,
        if the server crashed meanwhile.
        """
        self.guard.enter(write=True)
        try:
            try:
                result = self._relaxed.transact(job)
            except InDoubt:  # a crash may have undone it anyway
                result = self._relaxed.transact(job)
        except DroprError as error:
            raise self._told(error) from error.__cause__
        if mark:
            self.flusher.mark()
        return result

    def relaxed_statement(self, statement: str, values: Sequence[Any] = (), *, mark: bool = True) -> list[Any]:
        """`relaxed` with one statement, which may be done twice: one way there and back. Returns its rows."""
        self.guard.enter(write=True)
        try:
            rows = self._relaxed.statement(statement, values)
        except DroprError as error:
            raise self._told(error) from error.__cause__
        if mark:
            self.flusher.mark()
        return rows

    def relaxed_quick(self, job: Callable[[Connection], T]) -> T | None:
        """`relaxed` with one statement in autocommit. None if its session broke before the answer: it may have gone
        through or not, and by now that is decided.
        """
        self.guard.enter(write=True)
        try:
            result = self._relaxed.quick(job, lambda: None)
        except DroprError as error:
            raise self._told(error) from error.__cause__
        self.flusher.mark()
        return result

    def read(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which only reads, on one consistent state."""
        self.guard.enter(write=False)
        try:
            return self._reader.look(job)
        except DroprError as error:
            raise self._told(error) from error.__cause__

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """`read` with one statement: one way there and back. Returns its rows."""
        self.guard.enter(write=False)
        try:
            return self._reader.statement(statement, values)
        except DroprError as error:
            raise self._told(error) from error.__cause__

    def flush(self) -> None:
        """Everything committed so far, by any process, is on stable storage when this returns."""
        if self.context.read_only:
            return
        self.flusher.clean()
        try:
            self.write(_flush)
        except BaseException:
            self.flusher.mark()
            raise

    def close(self) -> None:
        """Flush what is unflushed and close every session; safe twice."""
        if self.guard.closed:
            return
        if self.guard.forked:  # a forked child must not touch its parent's sessions
            self.guard.closed = True
            return
        self.flusher.close()
        try:
            if self.flusher.dirty:
                self.flush()
        except DroprError as error:
            self.context.log.warning("%s: the last flush failed: %s", self.name, error)
        finally:
            self.guard.closed = True
            for session in (self._durable, self._relaxed, self._reader):
                session.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _commit(self, jobs: list[Callable[[Connection], Any]]) -> Sequence[Any]:
        if len(jobs) == 1 and isinstance(jobs[0], QuickJob):
            job = jobs[0]
            try:
                result = self._durable.quick(job.quick, job.doubt)
            except Exception as error:
                return [self._told(error)]
            if result is not None:
                return [result]
        if len(jobs) > 1:
            try:
                return self._durable.transact(lambda connection: run_together(connection, jobs))
            except InDoubt as doubt:
                return [self._decide(job, doubt) for job in jobs]
            except Exception:  # noqa: S110 -- whose it is will show: what it wrote must go without taking the others along
                pass
        return [self._attempt(job) for job in jobs]

    def _attempt(self, job: Callable[[Connection], Any]) -> Any:
        """The result of a job alone, or its error."""
        try:
            return self._durable.transact(job)
        except InDoubt as doubt:
            return self._decide(job, doubt)
        except Exception as error:
            return self._told(error)

    def _decide(self, job: Callable[[Connection], Any], doubt: InDoubt) -> Any:
        """The result of a job whose commit is in doubt, where the job can tell by what is stored; else the doubt."""
        if not isinstance(job, QuickJob):
            return self._told(doubt)
        job.doubt()
        try:
            return self._durable.transact(job)
        except Exception as error:
            return self._told(error)

    def _told(self, error: Exception) -> Exception:
        """The same error, after observers heard of it."""
        if isinstance(error.__cause__, Exception):  # one of the server's, and not one of a job's own
            for kind, event in ((StoreCorrupt, "corrupt"), (QueueFull, "full"), (WriteFailed, "write_failed")):
                if isinstance(error, kind):
                    self._events.tell(event, {"error": str(error)})
        return error


def _flush(connection: Connection) -> None:
    connection.execute(FLUSH)
