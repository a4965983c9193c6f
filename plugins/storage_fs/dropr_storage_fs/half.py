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
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs

from dropr_core.contracts.context import Context
from dropr_core.errors import Closed, DroprError, StoreCorrupt, StoreReadOnly, StoreTooNew, WriteFailed
from dropr_storage_fs import disk, journal, shared
from dropr_storage_fs.flusher import Flusher
from dropr_storage_fs.group import Group
from dropr_storage_fs.journal import Journal, Op
from dropr_storage_fs.layout import Frame, Record
from dropr_storage_fs.log import End, Log, sealed
from dropr_storage_fs.shared import Shared
from dropr_storage_fs.space import Space

T = TypeVar("T")
JOURNAL_MIN = 4 << 20
"""A journal below this size is not rewritten."""
TELL_EVERY = 60.0


@attrs.frozen
class Tuning:
    """The user's options."""

    flush: float = 0.02
    busy: float = 10.0
    reserve: int = 4 << 20


class State(Protocol):
    """What a half keeps in memory: made of operations, and able to say itself as operations."""

    def apply(self, op: Op) -> None:
        """Do one operation. Never fails, whatever was done before."""

    def snapshot(self) -> list[Op]:
        """Operations that make this state from nothing."""

    def recovered(self, number: int, frame: Frame, records: list[Record], segment: int) -> list[Op]:
        """Operations that a frame stands for, which the journal may have lost."""

    def logs(self) -> list[int]:
        """The numbers of all logs."""


class Commit:
    """What one job writes."""

    def __init__(self, half: "Half", *, promised: bool) -> None:
        self.half, self._promised = half, promised
        self.touched: dict[int, Log] = {}
        self.journalled = False
        """Whether the journal must be flushed before this is promised."""
        self._pending: list[Op] = []
        self._noted = False
        self._before: list[tuple[Log, End]] = []
        self._journal_before = int(half.words[shared.JOURNAL])

    def frame(
        self, number: int, first: int, last: int, make: Callable[[int], list[bytes]], size: int, extra: bytes = b""
    ) -> None:
        """Append one frame to a log. ``make``: its records, for the salt of the segment."""
        log = self.half.log(number)
        target = log.ready()
        self._before.append((log, log.end))
        records = make(target.salt)
        data = sealed(records, target, first, log.flushed.last, extra)
        log.append(target, data, last, len(records), size)
        self.touched[number] = log

    def note(self, op: Op) -> None:
        """Apply an operation that the logs can tell, too: it goes to the journal for other processes."""
        self._noted = True
        self._pending.append(op)
        self.half.state.apply(op)

    def do(self, op: Op) -> None:
        """Apply an operation and write it to the journal."""
        self.journalled = True
        self.note(op)

    def ops(self, ops: Sequence[Op]) -> None:
        """Several of them."""
        for op in ops:
            self.do(op)

    def write(self) -> None:
        """Write to the journal what was done so far, as one whole."""
        if self._pending:
            self.half.write_journal(self._pending, promised=self._promised and self.journalled)
            self._pending = []

    def undo(self) -> None:
        """The job failed half-way: nobody has seen what it wrote, and nobody will."""
        for log, end in reversed(self._before):
            log.take_back(end)
        if self._noted:
            self.half.take_back(self._journal_before)


class Half:
    """Files of one half, for one process."""

    def __init__(self, directory: Path, tuning: Tuning, context: Context, make_state: Callable[[], Any]) -> None:
        self.directory, self.tuning, self.context = directory, tuning, context
        self._make_state = make_state
        self.state: Any = make_state()
        self.space = Space(
            directory.parent, context.clock, context.min_free, tuning.reserve, f"{directory.name}.reserve"
        )
        self.flusher = Flusher(tuning.flush, self.flush, context.log, f"dropr-{directory.name}-flush")
        self.group = Group(self._run_durable)
        self._mutex = threading.RLock()
        self._pid, self._closed = os.getpid(), False
        self._logs: dict[int, Log] = {}
        self._told: dict[str, float] = {}
        self._lock_fd = self._life_fd = -1
        self._journal: Journal | None = None
        self._at = 0
        self.words: Any = None
        try:
            self._open()
        except OSError as error:
            self._release()
            raise disk.translate(error, directory) from error
        except BaseException:
            self._release()
            raise

    # ── opening ──────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if self.context.read_only:
            self._shared = Shared(None)
            self.words = self._shared.words
            self._recover(cut=False)
            return
        disk.make_directory(self.directory)
        disk.make_directory(self.directory / "logs")
        with disk.alone(self.directory / "open.lock", self.tuning.busy):
            self._life_fd = disk.open_file(self.directory / "life.lock", write=True, create=True)
            self._lock_fd = disk.open_file(self.directory / "write.lock", write=True, create=True)
            try:
                fcntl.flock(self._life_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                only = True
            except BlockingIOError:
                only = False
            self._shared = Shared(self.directory / "shared")
            self.words = self._shared.words
            if only:
                self._shared.clear()
                self._recover(cut=True)
                fcntl.flock(self._life_fd, fcntl.LOCK_SH)
            else:
                fcntl.flock(self._life_fd, fcntl.LOCK_SH)

    def _recover(self, *, cut: bool) -> None:
        """Read everything that a stopped or cut-off store left, and put it in order."""
        found = journal.generations(self.directory) if self.directory.is_dir() else []
        opened: Journal | None = None
        for generation in reversed(found):
            opened = Journal(self.directory, generation, read_only=not cut)
            if opened.good:
                break
            self.tell("corrupt", {"file": str(opened.path), "error": "the header of this journal is damaged"})
            opened.close()
            opened = None
        if opened is None and found:
            raise StoreCorrupt(f"{self.directory}: no journal can be read; put it back from a backup")
        if opened is not None and opened.version != journal.VERSION:
            raise StoreTooNew(f"{opened.path} was written by a newer version (format {opened.version})")
        self._journal, self._at = opened, journal.START_SIZE
        self.state.recovering = self.state.cold = True
        if opened is not None:
            size = os.fstat(opened.fd).st_size
            self._read(opened, size)
            if self._at < size:
                self.tell("torn", {"file": str(opened.path), "from": self._at, "bytes": size - self._at})
                if cut:
                    self._keep_tail(opened, size)
        self.words[shared.NUMBER] = self.state.number
        fresh = self._recover_logs(cut=cut)
        for op in fresh:
            self.state.apply(op)
        self.state.recovering = self.state.cold = False
        if cut:
            self.state.settle_after_recovery()
            self._new_generation()

    def _keep_tail(self, opened: Journal, size: int) -> None:
        """What cannot be read is evidence: it stays beside the new generation."""
        tail = os.pread(opened.fd, size - self._at, self._at)
        if tail.strip(b"\0"):
            disk.put_file(self.directory / f"torn-{opened.path.name}", tail)

    def _recover_logs(self, *, cut: bool) -> list[Op]:
        fresh: list[Op] = []
        for number in self.state.logs():
            log = self.log(number)

            def each(frame: Frame, records: list[Record], number: int = number, log: Log = log) -> None:
                fresh.extend(self.state.recovered(number, frame, records, log.word(shared.SEGMENT)))

            known = self.state.known_end(number)
            log.recover(known, each, cut=cut)
            for op in self.state.redo(number, log.end.last):
                self._redo(log, op, each, cut=cut)
            self.state.beyond(number, log.end.last)
        return fresh

    def _redo(self, log: Log, op: Op, each: Callable[[Frame, list[Record]], None], *, cut: bool) -> None:
        """Append what the journal promised for several logs at once and this one has not got."""
        if cut:
            first, last, size, records, extra = self.state.unpack_intent(op)
            target = log.ready()
            packed, before = records(target.salt), log.end
            log.append(target, sealed(packed, target, first, 0, extra), last, len(packed), size)
            disk.flush_file(target.fd)
            log.set_flushed(log.end)
            log.look(before, each)

    # ── the lock ─────────────────────────────────────────────────────────────────────────────────

    def enter(self, *, write: bool) -> None:
        """Raise Closed after close or in a forked child, StoreReadOnly for a write to what was opened to look."""
        if self._closed:
            raise Closed(f"{self.directory} was closed")
        if os.getpid() != self._pid:
            raise Closed(f"{self.directory} was opened before a fork; open the node anew in the child process")
        if write and self.context.read_only:
            raise StoreReadOnly(f"{self.directory} was opened only to look")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other thread and no other process reads or writes."""
        with self._mutex:
            if self._closed:
                raise Closed(f"{self.directory} was closed")
            if self._lock_fd < 0:
                yield
                return
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            try:
                if self.words[shared.BUSY]:
                    self._repair()
                yield
            finally:
                fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _repair(self) -> None:
        """A process died while it wrote: find the ends of everything anew."""
        generation = int(self.words[shared.GENERATION])
        opened = Journal(self.directory, generation)
        try:
            at = journal.START_SIZE
            for _ops, _promised, behind in opened.read(at, os.fstat(opened.fd).st_size):
                at = behind
            os.ftruncate(opened.fd, at)
            self.words[shared.JOURNAL] = at
        finally:
            opened.close()
        self.state.recovering = True
        self.follow()
        self.state.recovering = True  # perhaps of a new generation
        fresh: list[Op] = []
        for number in self.state.logs():
            log = self.log(number)
            before = log.end

            def each(frame: Frame, records: list[Record], number: int = number, log: Log = log) -> None:
                fresh.extend(self.state.recovered(number, frame, records, log.word(shared.SEGMENT)))

            log.recover(log.flushed if log.flushed.written else None, each)
            for op in self.state.redo(number, log.end.last):
                self._redo(log, op, each, cut=True)
            if before != log.end:
                self.context.log.info("%s: mended after the death of a process", log.directory)
        self.words[shared.NUMBER] = max(int(self.words[shared.NUMBER]), self.state.number)
        self.words[shared.BUSY] = 0
        self.state.recovering, self.state.intents = False, []
        for op in fresh:
            self.state.apply(op)
        if fresh:
            self.write_journal(fresh, promised=False)

    def follow(self) -> None:
        """Learn what other processes wrote."""
        generation = int(self.words[shared.GENERATION])
        opened = self._journal
        if opened is not None and opened.generation == generation:
            if self._at < self.words[shared.JOURNAL]:
                self._read(opened, int(self.words[shared.JOURNAL]))
            return
        if self.context.read_only:
            return
        self.state = self._make_state()
        if opened is not None:
            opened.close()
        self._journal, self._at = Journal(self.directory, generation), journal.START_SIZE
        self._read(self._journal, int(self.words[shared.JOURNAL]))

    def _read(self, opened: Journal, end: int) -> None:
        apply = self.state.apply
        for ops, _promised, behind in opened.read(self._at, end):
            for op in ops:
                apply(op)
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
        data = opened.pack(ops, promised=promised)
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

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self.words[shared.BUSY] = 1
        try:
            yield
        finally:
            self.words[shared.BUSY] = 0

    def durable(self, job: Callable[[Commit], T]) -> T:
        """Run ``job``; what it wrote is on stable storage on return."""
        self.enter(write=True)
        try:
            return self.group.run(job)  # type: ignore[no-any-return]
        except OSError as error:
            raise self._failed(error) from error

    def _run_durable(self, jobs: list[Callable[[Commit], Any]]) -> list[Any]:
        """The result or the exception of each job."""
        results: list[Any] = []
        commits: list[Commit | None] = []
        flushes: list[tuple[Log, End, int, int]] = []
        handle, upto, generation = -1, 0, 0
        try:
            with self.locked():
                for job in jobs:
                    commit = Commit(self, promised=True)
                    try:
                        with self._writing():
                            result = job(commit)
                            commit.write()
                        results.append(result)
                        commits.append(commit)
                    except Exception as error:
                        commit.undo()
                        results.append(self._failed(error) if isinstance(error, OSError) else error)
                        commits.append(None)
                done = [commit for commit in commits if commit is not None]
                for log in {log.number: log for commit in done for log in commit.touched.values()}.values():
                    end = log.end
                    flushes.append((log, end, log.handle(end), log.word(shared.CUTS)))
                if any(commit.journalled for commit in done) and self._journal is not None:
                    handle, upto = os.dup(self._journal.fd), int(self.words[shared.JOURNAL])
                    generation = self._journal.generation
                    self.flusher.clean()
            problem = self._flush_all(flushes, handle)
            if flushes or handle >= 0:
                with self.locked():
                    problem = self._confirm(flushes, handle >= 0, generation, upto, problem)
        finally:
            for _log, _end, fd, _cuts in flushes:
                os.close(fd)
            if handle >= 0:
                os.close(handle)
        if problem is not None:
            results = [
                result if commit is None or not (commit.touched or commit.journalled) else problem
                for result, commit in zip(results, commits, strict=True)
            ]
        elif self._journal is not None and self._at > max(JOURNAL_MIN, 3 * self.state.snapshot_size):
            self.compact()
        return results

    def _flush_all(self, flushes: list[tuple[Log, End, int, int]], handle: int) -> tuple[Log | None, OSError] | None:
        for log, _end, fd, _cuts in flushes:
            try:
                disk.flush_file(fd)
            except OSError as error:
                return log, error
        if handle >= 0:
            try:
                disk.flush_file(handle)
            except OSError as error:
                return None, error
        return None

    def _confirm(
        self, flushes: list[tuple[Log, End, int, int]], journalled: bool, generation: int, upto: int, problem: Any
    ) -> DroprError | None:
        if problem is not None:
            _log, error = problem
            for each, _end, _fd, cuts in flushes:
                if each.word(shared.CUTS) == cuts:
                    each.fail()
            self._start_over()
            return self._failed(error)
        try:
            for log, end, _fd, cuts in flushes:
                log.confirm(end, cuts)
        except WriteFailed as error:
            return error
        if journalled and generation == self.words[shared.GENERATION]:
            self.words[shared.JOURNAL_SYNCED] = max(int(self.words[shared.JOURNAL_SYNCED]), upto)
        elif journalled and generation in self._lost_generations():
            return WriteFailed(f"{self.directory}: another process met a disk error while this was written")
        return None

    def _lost_generations(self) -> set[int]:
        return set(self.state.lost)

    def _failed(self, error: OSError) -> DroprError:
        translated = disk.translate(error, self.directory)
        self.tell("full" if type(translated).__name__ == "QueueFull" else "write_failed", {"error": str(error)})
        return translated

    def _start_over(self) -> None:
        """A flush failed: what was promised since the last good one did not happen. Derive everything anew from what
        is known to be on stable storage (and what was never promised), into a new generation of the journal.
        """
        generation, good = int(self.words[shared.GENERATION]), int(self.words[shared.JOURNAL_SYNCED])
        old = Journal(self.directory, generation)
        number = int(self.words[shared.NUMBER])
        self.state = self._make_state()
        self.state.recovering = self.state.cold = True
        for ops, promised, behind in old.read(journal.START_SIZE, int(self.words[shared.JOURNAL])):
            if behind <= good or not promised:
                for op in ops:
                    self.state.apply(op)
        old.close()
        fresh: list[Op] = []
        for log_number in self.state.logs():
            log = self.log(log_number)

            def each(frame: Frame, records: list[Record], log_number: int = log_number, log: Log = log) -> None:
                fresh.extend(self.state.recovered(log_number, frame, records, log.word(shared.SEGMENT)))

            log.look(self.state.known_end(log_number), each)
            self.state.beyond(log_number, log.end.last)
        for op in fresh:
            self.state.apply(op)
        self.state.recovering, self.state.cold, self.state.intents = False, False, []
        self.state.apply(["lost", generation])
        self.words[shared.NUMBER] = number
        self._new_generation()

    def lazy(self, job: Callable[[Commit], T], *, mark: bool = True) -> T:
        """Run ``job``; what it wrote survives the process, and a power cut within the flush interval."""
        self.enter(write=True)
        try:
            with self.locked(), self._writing():
                commit = Commit(self, promised=False)
                try:
                    result = job(commit)
                    commit.write()
                except Exception:
                    commit.undo()
                    raise
        except OSError as error:
            raise self._failed(error) from error
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
            self.follow()
            commit.journalled = self.words[shared.JOURNAL] > self.words[shared.JOURNAL_SYNCED]

        try:
            self.durable(job)
        except BaseException:
            self.flusher.mark()
            raise

    # ── generations ──────────────────────────────────────────────────────────────────────────────

    def compact(self) -> None:
        """Begin a new generation of the journal, and remove segments that nobody needs."""
        try:
            with self.locked():
                self.follow()
                if self._at > max(JOURNAL_MIN, 3 * self.state.snapshot_size):
                    with self._writing():
                        self._new_generation()
        except OSError as error:
            self._failed(error)

    def _new_generation(self) -> None:
        generation = (self._journal.generation if self._journal is not None else 0) + 1
        for number in self.state.logs():
            log = self.log(number)
            end = log.end
            if end[:2] > log.flushed[:2]:
                handle = log.handle(end)
                try:
                    disk.flush_file(handle)
                except OSError:
                    log.fail()
                    raise
                finally:
                    os.close(handle)
                log.set_flushed(end)
            self.state.set_known_end(number, log.flushed)
        self.state.number = max(self.state.number, int(self.words[shared.NUMBER]))
        size = journal.create(self.directory, generation, self.state.snapshot())
        if self._journal is not None:
            self._journal.close()
        self._journal, self._at = Journal(self.directory, generation), size
        self.state.snapshot_size = size
        self.words[shared.JOURNAL] = self.words[shared.JOURNAL_SYNCED] = size
        self.words[shared.GENERATION] = generation
        journal.remove_before(self.directory, generation)

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
            if self.flusher.dirty:
                try:
                    self.flush()
                except DroprError as error:
                    self.context.log.warning("%s: the last flush failed: %s", self.directory, error)
        with self._mutex:
            self._closed = True
            self._release()

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
        if self.words is not None:
            self.words = None
            self._shared.close()
