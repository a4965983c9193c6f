"""One half of a store: its lock, its journal, its logs, its commits.

Owns when what is written, flushed, followed and recovered:

* ``durable``: what the job writes is on stable storage on return. Calls of many threads share the flush, and no lock
  between processes is held meanwhile.
* ``lazy``: survives the process at once, and a power cut within the flush interval.
* ``look``: reads.

A job works out what to write from a state that it must not touch, and hands operations to its `Commit`; they are
written and then applied, here and by every other process. Must not know what they mean.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from dropr_core.contracts.context import Context
from dropr_core.errors import DroprError, QueueFull, WriteFailed
from dropr_core.system.flusher import Flusher
from dropr_core.system.space import Space
from dropr_storage_fs.engine import journal
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.group_commit import Group, Together
from dropr_storage_fs.engine.journal import Journal, Op
from dropr_storage_fs.engine.locking import Door, Locked
from dropr_storage_fs.engine.opening import Opening
from dropr_storage_fs.engine.recovery import Recovery
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_recovery import End

T = TypeVar("T")
TELL_EVERY = 60.0
LOST = "these bytes of the journal are damaged; what they said is lost, what the logs say of it is read again"


@attrs.frozen
class Tuning:
    """The user's options."""

    flush: float = 0.02
    busy: float = 10.0
    reserve: int = 4 << 20


class Half(Door, Opening, Recovery):
    """Files of one half, for one process."""

    def __init__(self, directory: Path, tuning: Tuning, context: Context, make_state: Callable[[], Any]) -> None:
        self.directory, self.tuning, self.context = directory, tuning, context
        self._lock_path = str(directory / "write.lock")
        self._make_state = make_state
        self.state: Any = make_state()
        self.space = Space(
            directory.parent, context.clock, context.min_free, tuning.reserve, f"{directory.name}.reserve"
        )
        self.flusher = Flusher(tuning.flush, self.flush, context.log, f"dropr-{directory.name}-flush")
        self.group = Group(self._run_durable)
        self._mutex, self._depth = threading.RLock(), 0
        self._held = Locked(self)
        self._pid, self._closed = os.getpid(), False
        self._logs: dict[int, Log] = {}
        self._told: dict[str, float] = {}
        self._lock_fd = self._life_fd = -1
        self._journal: Journal | None = None
        self._at = 0
        self._alone = False
        self._inode = (0, 0)
        self._shared: Any = None
        self.remember_forks()
        try:
            self._open()
        except OSError as error:
            self._release()
            raise disk.translate(error, directory) from error
        except BaseException:
            self._release()
            raise

    # ── the state ────────────────────────────────────────────────────────────────────────────────

    @property
    def words(self) -> Any:
        """The words that all processes share."""
        return self._shared.words

    def follow(self) -> None:
        """Learn what other processes wrote."""
        generation = int(self.words[shared.GENERATION])
        opened = self._journal
        if opened is not None and opened.generation == generation:
            if self._at < self.words[shared.JOURNAL]:
                self._read(opened, int(self.words[shared.JOURNAL]))
            return
        if self._alone:
            return
        self.state = self._make_state()
        if opened is not None:
            opened.close()
        self._journal = Journal(self.directory, generation, read_only=self.context.read_only)
        self._at = journal.START_SIZE
        self._read(self._journal, int(self.words[shared.JOURNAL]))

    def _read(self, opened: Journal, end: int) -> None:
        apply = self.state.apply
        for ops, _promised, behind in opened.read(self._at, end):
            if ops[0][0] == "damaged":
                self.tell("corrupt", {"file": str(opened.path), "from": ops[0][1], "to": ops[0][2], "error": LOST})
            for op in ops:
                try:
                    apply(op)
                except LookupError:  # it speaks of something that stood in the damaged part
                    if not self.state.damaged:
                        raise
            self._at = behind

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def log(self, number: int) -> Log:
        """A log by its number."""
        found = self._logs.get(number)
        if found is None:
            where = self.directory / "logs" / f"{number:05d}"
            found = Log(where, number, self._shared, self.tell, read_only=self.context.read_only)
            self._logs[number] = found
        return found

    def write_journal(self, ops: Sequence[Op], *, promised: bool) -> None:
        """Append one commit to the journal; it is applied already."""
        opened = self._journal
        assert opened is not None
        data = opened.pack(ops, promised=promised, synced=int(self.words[shared.JOURNAL_SYNCED]))
        at = int(self.words[shared.JOURNAL])
        try:
            disk.write_at(opened.fd, data, at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(opened.fd, at)
            raise
        self.words[shared.JOURNAL] = self._at = at + len(data)

    def take_back(self, at: int) -> None:
        """Cut the journal to where it was, and forget what was applied since."""
        assert self._journal is not None
        self.words[shared.JOURNAL] = at
        with contextlib.suppress(OSError):
            os.ftruncate(self._journal.fd, at)
        self.state, self._at = self._make_state(), journal.START_SIZE
        self._read(self._journal, at)

    def durable(self, job: Callable[[Commit], T], *, relief: bool = True) -> T:
        """Run ``job``; what it wrote is on stable storage on return. ``relief``: on a full disk the reserve is
        given up for it.
        """
        self.enter(write=True)
        try:
            return self.group.run(job)  # type: ignore[no-any-return]
        except QueueFull as full:
            if not relief or full.__cause__ is None or not self.space.use_reserve():
                raise
        return self.group.run(job)  # type: ignore[no-any-return]

    def _run(self, commit: Commit, job: Callable[[Commit], T]) -> T:
        """Do one job under the lock; undone if it fails."""
        self._check_there()
        self.follow()
        words = self.words
        if words[shared.SUSPECT]:
            try:
                self._start_over()
            except OSError as error:
                raise self._failed(error) from error
        words[shared.BUSY] = 1
        try:
            result = job(commit)
            commit.write()
        except BaseException as error:
            commit.undo()
            self.words[shared.BUSY] = 0
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise
        self.words[shared.BUSY] = 0
        return result

    def _run_all(self, jobs: list[Callable[[Commit], Any]], commits: list[Commit]) -> list[Any]:
        """The result or the exception of each job; their commits are added to ``commits``."""
        first = jobs[0]
        if len(jobs) > 1 and isinstance(first, Together):
            alike = [job.items for job in jobs if isinstance(job, Together) and job.run == first.run]
            if len(alike) == len(jobs):
                commit = Commit(self, promised=True)
                try:
                    results = self._run(commit, lambda commit: first.run(commit, alike))
                except Exception:  # noqa: S110 -- one of them failed: find out which by giving each a commit of its own
                    pass
                else:
                    commits.append(commit)
                    return results
        results = []
        for job in jobs:
            commit = Commit(self, promised=True)
            try:
                results.append(self._run(commit, job))
                commits.append(commit)
            except Exception as error:
                results.append(error)
        return results

    def _run_durable(self, jobs: list[Callable[[Commit], Any]]) -> list[Any]:
        """The result or the exception of each job."""
        results: list[Any] = []
        commits: list[Commit] = []
        flushes: list[tuple[Log, End, int, int]] = []
        handle, upto, generation = -1, 0, 0
        try:
            self.lock()
            try:
                results = self._run_all(jobs, commits)
                if len(commits) == 1:  # by far the most
                    touched, journalled = commits[0].touched, commits[0].journalled
                else:
                    touched = {number: log for commit in commits for number, log in commit.touched.items()}
                    journalled = any(commit.journalled for commit in commits)
                for log in touched.values():
                    end = log.end
                    flushes.append((log, end, log.handle(end), log.word(shared.CUTS)))
                words = self.words
                if journalled or (touched and words[shared.INTENT] > words[shared.JOURNAL_SYNCED]):
                    assert self._journal is not None
                    handle, upto = os.dup(self._journal.fd), int(words[shared.JOURNAL])
                    generation = self._journal.generation
                    self.flusher.clean()
            finally:
                self.unlock()
            if not flushes and handle < 0:
                return results
            problem = self._flush_all(flushes, handle)
            self.lock()
            try:
                failure = self._confirm(
                    flushes, journalled=handle >= 0, generation=generation, upto=upto, problem=problem
                )
            finally:
                self.unlock()
        finally:
            for _log, _end, fd, _cuts in flushes:
                os.close(fd)
            if handle >= 0:
                os.close(handle)
        if failure is not None:
            return [result if isinstance(result, Exception) else failure for result in results]
        self.compact()
        return results

    def _flush_all(self, flushes: list[tuple[Log, End, int, int]], handle: int) -> OSError | None:
        """The journal first: what stands in several logs is never flushed before its intent."""
        try:
            if handle >= 0:
                disk.flush_file(handle)
            for _log, _end, fd, _cuts in flushes:
                disk.flush_file(fd)
        except OSError as error:
            return error
        return None

    def _confirm(
        self, flushes: list[tuple[Log, End, int, int]], *, journalled: bool, generation: int, upto: int,
        problem: OSError | None,
    ) -> DroprError | None:  # fmt: skip
        self.follow()
        if problem is not None:
            with contextlib.suppress(OSError):  # else it is tried again before anything else is written
                self._start_over()
            return self._failed(problem)
        try:
            for log, end, _fd, cuts in flushes:
                log.confirm(end, cuts)
        except WriteFailed as error:
            return error
        if journalled and generation == self.words[shared.GENERATION]:
            self.words[shared.JOURNAL_SYNCED] = max(int(self.words[shared.JOURNAL_SYNCED]), upto)
        elif journalled and generation in self.state.lost:
            return WriteFailed(f"{self.directory}: another process met a disk error while this was written")
        self._check_off([log for log, *_ in flushes])
        return None

    def _failed(self, error: OSError) -> DroprError:
        translated = disk.translate(error, self.directory)
        self.tell("full" if type(translated).__name__ == "QueueFull" else "write_failed", {"error": str(error)})
        return translated

    def lazy(self, job: Callable[[Commit], T], *, mark: bool = True) -> T:
        """Run ``job``; what it wrote survives the process, and a power cut within the flush interval."""
        self.enter(write=True)
        try:
            return self._lazy(job, mark=mark)
        except QueueFull as full:
            if full.__cause__ is None or not self.space.use_reserve():
                raise
        return self._lazy(job, mark=mark)

    def _lazy(self, job: Callable[[Commit], T], *, mark: bool) -> T:
        with self.locked():
            commit = Commit(self, promised=False)
            result = self._run(commit, job)
        if commit.journalled and mark:
            self.flusher.mark()
        return result

    def look(self, job: Callable[[], T]) -> T:
        """Run ``job``, which only reads."""
        self.enter(write=False)
        try:
            with self.locked():
                self.follow()
                return job()
        except OSError as error:
            raise disk.translate(error, self.directory) from error

    def flush(self) -> None:
        """Everything written so far, by any process, is on stable storage when this returns."""
        if self.context.read_only:
            return
        self.flusher.clean()

        def job(commit: Commit) -> None:
            commit.journalled = self.words[shared.JOURNAL] > self.words[shared.JOURNAL_SYNCED]

        try:
            self.durable(job)
        except BaseException:
            self.flusher.mark()
            raise

    def tell(self, event: str, details: dict[str, Any]) -> None:
        """Raise an event; the same one at most once a minute, except for damage, of which each place is told."""
        now = self.context.clock.now()
        if event == "corrupt" or now - self._told.get(event, float("-inf")) >= TELL_EVERY:
            self._told[event] = now
            self.context.event(event, {"store": str(self.directory), **details})

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Flush what is unflushed and close everything; safe twice."""
        if self._closed:
            return
        if os.getpid() == self._pid:
            self.flusher.close()
            if not self.context.read_only:
                try:
                    self.lazy(self._note_ends)
                    if self.flusher.dirty:
                        self.flush()
                except DroprError as error:
                    self.context.log.warning("%s: the last flush failed: %s", self.directory, error)
        with self._mutex:
            self._closed = True
            self._release()

    def _note_ends(self, commit: Commit) -> None:
        """So that the next opening need not look at what is known."""
        for number in self.state.logs():
            log = self.log(number)
            end = log.flushed
            if end.bytes != log.word(shared.CHECKED):
                log.set_word(shared.CHECKED, end.bytes)
                commit.note(["end", number, *end])

    def _release(self) -> None:
        for log in self._logs.values():
            log.close()
        if self._journal is not None:
            self._journal.close()
        for name in ("_lock_fd", "_life_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
        if self._shared is not None:
            self._shared.close()
