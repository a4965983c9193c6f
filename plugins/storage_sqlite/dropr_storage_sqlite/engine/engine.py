"""One half of a store: its connections, its transactions, its troubles.

Owns when a connection is opened, trusted, distrusted and closed. Must not know tables beyond `meta`.

* `write_durable`: on stable storage when it returns (group commit over a connection with synchronous=FULL).
* `write_flushed`: the same, but flushed when nobody waits for the file's lock any more: others see it a moment before
  it is on stable storage, and call `settle` or `settle_seen` before they promise what they have read (writers.py).
* `write`: survives the process at once and a power cut within the flush interval (`flush`, wal.py).
* `read`: the last commit, without waiting for writers.

After an I/O error, of this process or of another one (`storage_kit.syncs`), the connections are closed, and before the
next write a fresh one has to write the log again and make a real commit (mending.py). After two such errors in 60 s the
half is read-only until that test passes.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from dropr_core.contracts.context import Context
from dropr_core.errors import Closed, DroprError, QueueFull, StoreCorrupt, StoreReadOnly, WriteFailed
from dropr_core.storage_kit.events import StoreEvents
from dropr_core.storage_kit.group_commit import GroupCommit, are_told, in_one_transaction, tell_seen
from dropr_core.storage_kit.guard import Guard
from dropr_core.storage_kit.syncs import Syncs
from dropr_core.system.flusher import Flusher
from dropr_core.system.space import Space
from dropr_storage_sqlite.engine import connection as opening
from dropr_storage_sqlite.engine.errors import failed_to_sync, translate
from dropr_storage_sqlite.engine.forking import FORKS
from dropr_storage_sqlite.engine.mending import close_last, mend
from dropr_storage_sqlite.engine.same_file import SameFile
from dropr_storage_sqlite.engine.schema import Schema, version_of
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.engine.trust import Trust
from dropr_storage_sqlite.engine.tuning import Tuning
from dropr_storage_sqlite.engine.wal import Wal, flush_by_commit
from dropr_storage_sqlite.engine.writers import Writers

T = TypeVar("T")

MAY_BE_UNDONE = "what was acknowledged within the flush interval may be undone by a power cut"
MAY_BE_SENT = "nothing was promised, but unless the power fails now what was written stays and may be carried out"
FORK_PATIENCE = 10.0
"""Seconds that a fork waits for a transaction under way."""


class Engine:
    """Transactions on one file."""

    def __init__(self, path: Path, tuning: Tuning, context: Context, schema: Schema | None = None) -> None:
        """``schema``: the format that every connection must find; a newer dropr may have migrated the file since."""
        self.path, self.tuning, self.context, self._schema = path, tuning, context, schema
        self.guard = Guard(path, read_only=context.read_only)
        self._events = StoreEvents(context, path)
        self.space = Space(path.parent, context.clock, context.min_free, tuning.reserve, f"{path.stem}.reserve")
        self.flusher = Flusher(tuning.flush, self.flush, context.log, f"dropr-{path.stem}-flush")
        self._group: GroupCommit[Connection] = GroupCommit(in_one_transaction(self._durable))
        # In this order: a commit that is flushed afterwards, a transaction, a look.
        self._flushing, self._writing, self._reading = threading.Lock(), threading.Lock(), threading.Lock()
        self._flushed: GroupCommit[Connection] = GroupCommit(in_one_transaction(self._commit_and_flush))
        self._syncs = Syncs(path.with_suffix(".syncs"))
        self._wal = Wal(path, self._syncs)
        self.company = Writers(path)
        self.give_way = self.company.give_way
        self._writers: dict[int, apsw.Connection] = {}
        self._cursors: dict[int, apsw.Cursor] = {}
        self.commits = 0
        """Grows by one with each transaction of this process that went through, and by more with one that did not."""
        self._reader: tuple[apsw.Connection, apsw.Cursor] | None = None
        self._file = SameFile(path)
        self.trust = Trust(path, context.clock, self._events.tell)
        FORKS.watch(self)

    # ── the kinds of work ────────────────────────────────────────────────────────────────────────

    def write_durable(self, job: Callable[[Connection], T], *, relief: bool = False) -> T:
        """Run ``job`` in a transaction that is on stable storage on return.

        ``relief``: on a full disk the reserve is given up for it.
        """
        self.guard.enter(write=True)
        try:
            return self._group.run(job)
        except QueueFull as full:
            if not relief or not self._relieve(full):
                raise
        return self._group.run(job)

    def write_flushed(self, job: Callable[[Connection], T]) -> T:
        """As `write_durable`, but the disk keeps no other writer waiting, and who is told when the job's work is seen
        (`BatchedJob`) is told before the disk is waited for.
        """
        self.guard.enter(write=True)
        return self._flushed.run(job)

    def owed(self) -> int | None:
        """What `settle` needs; to be asked within a write transaction that has read what is going to be promised."""
        return self.company.owed()

    def settle(self, owed: int | None) -> None:
        """What was read before `owed` was asked is on stable storage when this returns, whoever wrote it."""
        if owed is not None and not self.company.await_flush(owed):
            self.flush()
            self.company.flushed(max(0, owed))

    def settle_seen(self) -> None:
        """What this process has read so far is on stable storage when this returns, whoever wrote it."""
        if not self.context.read_only and self.company.may_owe():
            self.settle(self.write(lambda _connection: self.owed(), mark=False))

    def write(self, job: Callable[[Connection], T], *, relief: bool = True, mark: bool = True) -> T:
        """Run ``job`` in a transaction that a power cut within the flush interval may undo.

        Without ``mark`` no flush is asked for: it may be undone until the next one.
        """
        self.guard.enter(write=True)
        try:
            result = self._transact(opening.NORMAL, job)
        except QueueFull as full:
            if not relief or not self._relieve(full):
                raise
            result = self._transact(opening.NORMAL, job)
        if mark:
            self.flusher.mark()
        return result

    def read(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which only reads, on one consistent state."""
        return self._with_reader(partial(opening.in_one_view, job))

    def look(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of one statement that only reads: alone it is consistent by itself, for less time."""
        return self._with_reader(lambda _reader, cursor: cursor.execute(statement, values).fetchall())

    def flush(self) -> None:
        """Everything committed so far, by any process, is on stable storage when this returns."""
        if self.context.read_only:
            return
        self.guard.enter(write=True)
        self.flusher.clean()
        try:
            if self._in_doubt() or not self._sync(MAY_BE_UNDONE):
                # Whoever comes first syncs the log's name as well, and makes sure that the file is still the same.
                self.write_durable(flush_by_commit, relief=True)
                self._open_wal()
        except BaseException:
            self.flusher.mark()
            raise

    def close(self) -> None:
        """Flush what is unflushed and close every connection; safe twice."""
        if self.guard.closed:
            return
        if self.guard.forked:  # a forked child must not touch its parent's connections
            self.guard.closed = True
            return
        self.flusher.close()
        try:
            if self.flusher.dirty:
                self.flush()
        except DroprError as error:
            self.context.log.warning("%s: the last flush failed: %s", self.path, error)
        finally:
            with self._flushing:  # what is committed is flushed before the log goes
                self.guard.closed = True
            with self._writing, self._reading:
                close_last(self._drop_all, self.path, self._syncs)

    def frugal(self, connection: Connection) -> Connection:
        """The same, for statements whose rows are all fetched before the next one: they share a cursor,
        since a new one for each costs as much as a small statement.
        """
        for synchronous, writer in self._writers.items():
            if connection is writer:
                return cast("Connection", self._cursors[synchronous])
        return connection

    # ── around a fork (forking.py) ───────────────────────────────────────────────────────────────

    def pause(self) -> bool:
        """Close every connection and let no thread open one until `resume`; False if one is busy for too long."""
        locks = (self._flushing, self._writing, self._reading)
        if self.guard.forked:
            return False
        for index, lock in enumerate(locks):
            if not lock.acquire(timeout=FORK_PATIENCE):
                for taken in reversed(locks[:index]):
                    taken.release()
                return False
        # Others use the file, or will soon: what stands in the WAL stays there, and the fork need not wait for it.
        for connection in (*self._writers.values(), *(self._reader or ())[:1]):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._drop_all()
        return True

    def resume(self) -> None:
        """Go on in the process that forked; connections are opened when they are needed."""
        for lock in (self._reading, self._writing, self._flushing):
            lock.release()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _with_reader(self, work: Callable[[apsw.Connection, apsw.Cursor], T]) -> T:
        self.guard.enter(write=False)
        with self._reading:
            try:
                if self._reader is None:
                    self._file.check()
                    reader = self._connect(opening.NORMAL)
                    self._reader = reader, reader.cursor()
                return work(*self._reader)
            except (apsw.Error, OSError) as error:
                self._drop_reader()
                raise self._trouble(error, 0, wrote=False) from error

    def _sync(self, harm: str) -> bool:
        try:
            return self._wal.sync()
        except OSError as error:
            failed = WriteFailed(
                f"{self.path}: the disk reported an error of its log ({error}); {harm}; look at the kernel's log"
            )
            with self._writing:
                raise self._trouble(failed, 0) from error

    def _open_wal(self) -> None:
        """For the flushes after this one: not while the writer whose commit has synced the log can be closed."""
        with self._writing:
            if opening.FULL in self._writers and not self._in_doubt():
                # Without room or handles for one of them each flush is a commit.
                with contextlib.suppress(apsw.Error, OSError, DroprError):
                    self._wal.open()
                    self._syncs.look()
                    self._writer(opening.NORMAL)

    def _relieve(self, full: QueueFull) -> bool:
        if not self.space.relieve(full):
            return False
        self._events.tell("full", {"reserve": "given up so that acknowledgements and receipts can go on"})
        return True

    def _durable(self, job: Callable[[Connection], Any]) -> Any:
        return self._transact(opening.FULL, job)

    def _commit_and_flush(self, job: Callable[[Connection], Any]) -> Any:
        # Without either nobody waits, and SQLite's own sync costs a little less.
        if not (self.company.has_company() or (are_told(job) and self.company.is_open)):
            return tell_seen(job, self._durable(job))
        with self._flushing:
            if self._in_doubt() or not (self._wal.is_open and opening.NORMAL in self._writers):
                result = tell_seen(job, self._durable(job))
                self._open_wal()
                return result
            result, number = self._transact(opening.NORMAL, lambda connection: (job(connection), self.company.begin()))
            tell_seen(job, result)
            if not self._sync(MAY_BE_SENT):
                self._durable(flush_by_commit)
            self.company.flushed(number)
        return result

    def _transact(self, synchronous: int, job: Callable[[Connection], T]) -> T:
        with self._writing:
            writer = None
            turn = self.company.take_turn()
            try:
                writer = self._writers.get(synchronous)
                if writer is None or self._in_doubt() or self._file.has_moved(writer):
                    self._file.check()
                    writer = self._writer(synchronous)
                cursor = self._cursors[synchronous]
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    result = job(writer)
                    self._commit(writer, cursor)
                except BaseException:
                    self.commits += 2
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")
                    raise
            except (apsw.Error, OSError) as error:
                raise self._trouble(error, opening.errno_of(writer)) from error
            finally:
                if turn:
                    self.company.give_turn()
            return result

    def _commit(self, writer: apsw.Connection, cursor: apsw.Cursor) -> None:
        errors = writer.system_errno
        self._syncs.begin()
        try:
            cursor.execute("COMMIT")
            self.commits += 1
            if writer.system_errno != errors:  # of a checkpoint that SQLite began, and that it keeps to itself
                self._met(OSError(writer.system_errno, os.strerror(writer.system_errno)))
        except apsw.IOError as error:
            if failed_to_sync(error):
                self._syncs.met()
            raise
        finally:
            self._syncs.end()

    def _in_doubt(self) -> bool:
        """Whether the log may have a hole, which this process or another one has heard of."""
        return self.trust.suspect or self._syncs.in_doubt()

    def _met(self, error: Exception) -> None:
        self._syncs.met()
        self.trust.failed(error)

    def _writer(self, synchronous: int) -> apsw.Connection:
        if self.guard.closed:
            raise Closed(f"{self.path} was closed")
        if self._in_doubt():
            self._retest()
        if synchronous not in self._writers:
            self._keep(synchronous, self._connect(synchronous))
            return self._writer(synchronous)  # somebody may be found dead
        return self._writers[synchronous]

    def _keep(self, synchronous: int, writer: apsw.Connection) -> None:
        self._writers[synchronous] = writer
        self._cursors[synchronous] = writer.cursor()  # a new one for each BEGIN and COMMIT costs as much as they do

    def _retest(self) -> None:
        """Make a real commit over a fresh connection, and write the log again; only then is the file trusted again."""
        self.trust.begin_test()
        self._drop_writers()
        with self._reading:
            self._drop_reader()
        probe = self._connect(opening.FULL)
        try:
            mend(probe, self.path, self._syncs)
        except (apsw.Error, OSError, DroprError) as error:
            number = opening.errno_of(probe)
            opening.close(probe, keep_log=True)
            translated = self._trouble(error, number)
            raise self.trust.alarm() if isinstance(translated, WriteFailed) else translated from error
        self._keep(opening.FULL, probe)
        if self.trust.suspect:
            self.trust.passed("a commit over a fresh connection went through")
        else:
            self.context.log.info("%s: the log was written again, after an error that another process met", self.path)

    def _trouble(self, error: Exception, number: int, *, wrote: bool = True) -> DroprError:
        translated = translate(error, self.path, number)
        if wrote and (isinstance(translated, WriteFailed) or failed_to_sync(error)):
            self._met(error)
            self._drop_writers()
        elif isinstance(translated, StoreReadOnly) and wrote:
            # Where a file cannot be opened for writing SQLite opens it to read, and the connection stays like that, as
            # does what it shares with the others of this process: all are opened anew, for the disk may be healed.
            self._drop_writers()
            with self._reading:
                self._drop_reader()
        elif isinstance(translated, StoreCorrupt):
            self._events.tell("corrupt", {"error": str(error)})
        elif isinstance(translated, QueueFull):
            self._events.tell("full", {"error": str(error)})
        return translated

    def _connect(self, synchronous: int) -> apsw.Connection:
        tuning = self.tuning
        if not self.context.read_only:
            self._syncs.open()
        connection = opening.connect(
            self.path, synchronous, tuning.busy, tuning.cache, read_only=self.context.read_only
        )  # fmt: skip
        try:
            if self._schema is not None:
                version_of(connection, self.path, self._schema)
            self._syncs.look()
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop_writers(self) -> None:
        self._wal.close()
        self.company.close()
        writers, self._writers, self._cursors = self._writers, {}, {}
        for writer in writers.values():
            opening.close(writer, keep_log=self._in_doubt())

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            opening.close(reader[0], keep_log=self._in_doubt())

    def _drop_all(self) -> None:
        self._drop_writers()
        self._drop_reader()
