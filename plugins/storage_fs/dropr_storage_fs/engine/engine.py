"""One half of a store, for one process: when what is written, flushed and followed.

* `write_durable`: what the job writes is on stable storage on return. Calls of many threads share the flush, and no
  lock between processes is held meanwhile.
* `write`: what the job writes survives the process at once, and a power cut within the flush interval.
* `read`: reads.

A job works out what to write from a state that it must not touch, and hands operations to its `Commit`; they are
written and then applied, here and by every other process. Owns the order of locks, commits and flushes. Must not know
what operations mean.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

import attrs

from dropr_core.contracts.context import Context
from dropr_core.errors import DroprError, QueueFull
from dropr_core.storage_kit.group_commit import BatchedJob, GroupCommit
from dropr_core.storage_kit.guard import Guard
from dropr_core.storage_kit.syncs import Syncs
from dropr_core.system.flusher import Flusher
from dropr_core.system.os_errors import NO_HANDLES, store_error
from dropr_core.system.space import Space
from dropr_storage_fs.engine import opening
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.generations import Generations
from dropr_storage_fs.engine.keeper import Keeper
from dropr_storage_fs.engine.locking import HalfLock
from dropr_storage_fs.engine.model import HalfModel
from dropr_storage_fs.engine.operations import LogEnd
from dropr_storage_fs.engine.promise import Promise
from dropr_storage_fs.engine.recovery import Recovery
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import shared
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import End

S = TypeVar("S", bound=HalfState)
T = TypeVar("T")


@attrs.frozen
class Tuning:
    """The user's options."""

    flush: float = 0.02
    busy: float = 10.0
    reserve: int = 4 << 20


class Engine(Generic[S]):
    """Files of one half, for one process."""

    def __init__(self, directory: Path, tuning: Tuning, context: Context, model: HalfModel[S]) -> None:
        self.directory, self._context = directory, context
        self._events = Events(directory, context)
        self._replica = Replica(directory, context, model, self._events)
        self._generations = Generations(self._replica)
        self._syncs = Syncs(directory / "syncs")
        self._recovery = Recovery(self._replica, self._generations, self._syncs)
        self.guard = Guard(directory, read_only=context.read_only)
        self._lock = HalfLock(directory, self.guard, self._repair_if_interrupted)
        self._keeper = Keeper(self._replica, self._lock, self._recovery, self._generations, self._events, self._syncs)
        self.space = Space(
            directory.parent, context.clock, context.min_free, tuning.reserve, f"{directory.name}.reserve"
        )
        self._flusher = Flusher(tuning.flush, self.flush, context.log, f"dropr-{directory.name}-flush")
        self._group: GroupCommit[Commit[S]] = GroupCommit(self._run_durable)
        try:
            if context.read_only:
                opening.open_to_look(self._replica, self._lock, self._recovery)
            else:
                opening.open_to_write(self._replica, self._lock, self._recovery, self._syncs, tuning.busy)
        except OSError as error:
            self._close_all()
            raise store_error(error, directory) from error
        except BaseException:
            self._close_all()
            raise
        self.keep_reserve()

    # ── what parts of a half look at, inside a job ───────────────────────────────────────────────

    @property
    def state(self) -> S:
        """What the half knows; inside a job only."""
        return self._replica.state

    def log(self, number: int) -> Log:
        """A log by its number; inside a job only."""
        return self._replica.log(number)

    def end(self, number: int) -> End:
        """Where a log ends, without opening anything; inside a job only."""
        return self._replica.end(number)

    def last_number(self) -> int:
        """The last number that any process gave; inside a job only."""
        return int(self._replica.shared[shared.NUMBER])

    def set_last_number(self, number: int) -> None:
        """Note it; inside a job only."""
        self._replica.shared[shared.NUMBER] = number

    def journal_is_flushed(self) -> bool:
        """Whether everything in the journal is on stable storage; inside a job only."""
        header = self._replica.shared
        return bool(header[shared.JOURNAL] <= header[shared.JOURNAL_SYNCED])

    def is_flushed(self, number: int) -> bool:
        """Whether all of a log is on stable storage; inside a job only."""
        return self._replica.is_flushed(number)

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    def write_durable(self, job: Callable[[Commit[S]], T], *, reserve: bool = False) -> T:
        """Run ``job``; what it wrote is on stable storage on return. ``reserve``: on a full disk the reserve is
        given up for it; for what brings no new messages.
        """
        self.guard.enter(write=True)
        try:
            return self._run_together(job)
        except QueueFull as full:
            if not self._make_room(full, reserve=reserve):
                raise
        return self._run_together(job)

    def write(self, job: Callable[[Commit[S]], T], *, flush: bool = True) -> T:
        """Run ``job``, which brings no new messages; what it wrote survives the process, and a power cut within the
        flush interval (without ``flush`` only together with something else).
        """
        self.guard.enter(write=True)
        try:
            return self._write(job, flush=flush)
        except QueueFull as full:
            if not self._make_room(full, reserve=True):
                raise
        return self._write(job, flush=flush)

    def _run_together(self, job: Callable[[Commit[S]], T]) -> T:
        try:
            return self._group.run(job)
        except OSError as error:
            raise store_error(error, self.directory) from error

    def _write(self, job: Callable[[Commit[S]], T], *, flush: bool) -> T:
        try:
            with self._lock:
                result, commit = self._run(job, promised=False)
        except OSError as error:
            raise store_error(error, self.directory) from error
        if commit.journalled and flush:
            self._flusher.mark()
        return result

    def _make_room(self, full: QueueFull, *, reserve: bool) -> bool:
        """Whether something could be given up so that trying again may help: the reserve, or open files."""
        cause = full.__cause__
        if isinstance(cause, OSError) and cause.errno in NO_HANDLES:
            with contextlib.suppress(OSError), self._lock:
                return self._replica.close_segments()
        return reserve and self.space.relieve(full)

    def keep_reserve(self) -> None:
        """Make the reserve again if it was given up and there is room."""
        if not self._context.read_only:
            self.space.keep_reserve()

    def read(self, job: Callable[[S], T]) -> T:
        """Run ``job``, which only reads."""
        self.guard.enter(write=False)
        try:
            return self._read(job)
        except OSError as error:
            if error.errno not in NO_HANDLES:
                raise store_error(error, self.directory) from error
        try:
            with self._lock:
                self._replica.close_segments()
            return self._read(job)
        except OSError as error:
            raise store_error(error, self.directory) from error

    def _read(self, job: Callable[[S], T]) -> T:
        with self._lock:
            self._replica.follow()
            return job(self._replica.state)

    def flush(self) -> None:
        """Everything written so far, by any process, is on stable storage when this returns."""
        if self._context.read_only:
            return
        self._flusher.clean()

        def job(commit: Commit[S]) -> None:
            commit.journalled = not self.journal_is_flushed()

        try:
            self.write_durable(job, reserve=True)
        except BaseException:
            self._flusher.mark()
            raise

    def check_off(self, numbers: Iterable[int]) -> None:
        """Note durably that all which these logs tell stands in the journal: before any segment of them goes."""

        def job(commit: Commit[S]) -> None:
            for number in numbers:
                commit.do(LogEnd.of(number, commit.log(number).flushed))

        self.write_durable(job, reserve=True)

    # ── one job ──────────────────────────────────────────────────────────────────────────────────

    def _run(self, job: Callable[[Commit[S]], T], *, promised: bool) -> tuple[T, Commit[S]]:
        """Do one job under the lock; undone if it fails."""
        self._lock.check_there()
        replica = self._replica
        replica.follow()
        if replica.shared.slots[shared.SUSPECT] or self._syncs.in_doubt():
            try:
                self._recovery.settle_doubt()
            except OSError as error:
                raise self._events.failed(error) from error
        if replica.shared.slots[shared.LEFTOVER]:
            try:
                self._generations.remove_leftover()
            except OSError as error:
                raise self._events.failed(error) from error
        replica.shared.slots[shared.BUSY] = 1
        commit = Commit(replica, promised=promised)
        try:
            result = job(commit)
            commit.write()
        except BaseException as error:
            commit.undo()
            replica.shared.slots[shared.BUSY] = 0
            if isinstance(error, OSError):
                raise self._events.failed(error) from error
            raise
        replica.shared.slots[shared.BUSY] = 0
        return result, commit

    def _repair_if_interrupted(self) -> None:
        if self._replica.shared.slots[shared.BUSY] and not self._context.read_only:
            self._recovery.repair()

    # ── many jobs, one flush ─────────────────────────────────────────────────────────────────────

    def _run_all(self, jobs: list[Callable[[Commit[S]], object]], commits: list[Commit[S]]) -> list[object]:
        """The result or the exception of each job; their commits are added to ``commits``."""
        first = jobs[0]
        if len(jobs) > 1 and isinstance(first, BatchedJob):
            alike = [job.items for job in jobs if isinstance(job, BatchedJob) and job.run == first.run]
            if len(alike) == len(jobs):
                try:
                    together, commit = self._run(lambda commit: first.run(commit, alike), promised=True)
                except Exception:  # noqa: S110 -- one of them failed: find out which by giving each a commit of its own
                    pass
                else:
                    commits.append(commit)
                    return list(together)
        results: list[object] = []
        for job in jobs:
            try:
                result, commit = self._run(job, promised=True)
                results.append(result)
                commits.append(commit)
            except Exception as error:
                results.append(error)
        return results

    def _run_durable(self, jobs: list[Callable[[Commit[S]], object]]) -> list[object]:
        """The result or the exception of each job."""
        results: list[object] = []
        promise = Promise(self._replica, self._lock)
        try:
            with self._lock:
                commits: list[Commit[S]] = []
                results = self._run_all(jobs, commits)
                if promise.collect(commits):
                    self._flusher.clean()
                company = promise.has_company()
            if promise.empty:
                return results
            failure = self._keeper.keep(promise, together=company)
        finally:
            promise.close()
        if failure is not None:
            return [result if isinstance(result, Exception) else failure for result in results]
        self._compact()
        return results

    def _compact(self) -> None:
        """Begin a new generation of the journal if this one has grown too long."""
        if not self._generations.due():
            return
        try:
            with self._lock:
                self._replica.follow()
                if self._generations.due():
                    self._begin()
        except OSError as error:
            self._events.failed(error)

    def _begin(self) -> None:
        self._replica.shared[shared.BUSY] = 1
        try:
            self._generations.begin()
        except OSError:
            self._generations.give_up()
            self._replica.shared[shared.BUSY] = 0
            raise
        self._replica.shared[shared.BUSY] = 0

    def renew(self) -> None:
        """Begin a new generation of the journal now: what is damaged of what is remembered is left behind."""
        self.guard.enter(write=True)
        try:
            with self._lock:
                self._replica.follow()
                self._begin()
        except OSError as error:
            raise store_error(error, self.directory) from error

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Flush what is unflushed and close everything; safe twice."""
        if self.guard.closed:
            return
        if not self.guard.forked:
            self._flusher.close()
            if not self._context.read_only:
                try:
                    self.write(self._note_ends)
                    if self._flusher.dirty:
                        self.flush()
                except DroprError as error:
                    self._context.log.warning("%s: the last flush failed: %s", self.directory, error)
        self._close_all()

    def _close_all(self) -> None:
        self._lock.close(self._replica.close)
        self._syncs.close()

    @staticmethod
    def _note_ends(commit: Commit[S]) -> None:
        """So that the next opening need not look at what is known."""
        for number in commit.state.logs():
            log = commit.log(number)
            end = log.flushed
            if end.bytes != log.slots.get(shared.CHECKED):
                log.slots.set(shared.CHECKED, end.bytes)
                commit.note(LogEnd.of(number, end))
