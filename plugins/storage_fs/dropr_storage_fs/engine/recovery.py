"""Order after a crash: what the journal and the logs of a half say together.

Owns opening after everybody was gone, and mending after one process died while it wrote. Must not know what the
operations mean.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreCorrupt, StoreGone, StoreTooNew
from dropr_storage_fs.engine import journal
from dropr_storage_fs.engine.commit import Commit, frame_of
from dropr_storage_fs.engine.journal import Journal, Op
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.layout import Frame, Record
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_recovery import Each

JOURNAL_MIN, CHECK_BYTES = 4 << 20, 2 << 20
"""A journal below this size is not rewritten; a log is checked off after so many bytes."""


class Recovery:
    """The part of `Half` that puts things in order."""

    directory: Path
    context: Context
    state: Any
    words: Any
    _journal: Journal | None
    _at: int
    log: Callable[[int], Log]
    durable: Callable[[Callable[[Commit], None]], None]
    tell: Callable[[str, dict[str, Any]], None]
    follow: Callable[[], None]
    write_journal: Any
    _read: Callable[[Journal, int], None]
    _failed: Callable[[OSError], Any]
    locked: Callable[[], contextlib.AbstractContextManager[None]]
    _make_state: Callable[[], Any]

    def _recover(self, *, cut: bool, made: bool) -> None:
        """Read everything that a stopped or cut-off store left, and put it in order."""
        found = journal.generations(self.directory) if self.directory.is_dir() else []
        opened = self._best(found, cut=cut)
        if opened is None and made:
            raise StoreGone(
                f"{self.directory}: the journal is gone, though this store was made before; put it back from a backup"
            )
        self._journal, self._at = opened, journal.START_SIZE
        self.state.recovering = self.state.cold = True
        self._find_logs()
        if opened is not None:
            size = os.fstat(opened.fd).st_size
            self._read(opened, size)
            if self._at < size:
                self._torn(opened, size, cut=cut)
        self.words[shared.NUMBER] = self.state.number
        self._derive(self._recover_logs(None, cut=cut))
        if cut:
            self.state.settle_after_recovery()
            self._new_generation()

    def _find_logs(self) -> None:
        """Each log says itself what it is, should the journal not know: damaged, or cut when the log was made."""
        for place in sorted((self.directory / "logs").glob("*/name.json")):
            try:
                op = json.loads(place.read_text(encoding="utf-8"))
                if int(place.parent.name) == op[1]:
                    self.state.apply(op)
            except (OSError, ValueError, LookupError, TypeError) as error:
                self.tell("corrupt", {"file": str(place), "error": f"cannot be read: {error}"})

    def _derive(self, fresh: list[Op]) -> None:
        """Apply what the logs told; forget what they have not got."""
        state, words = self.state, self.words
        for number in state.logs():
            last = self.log(number).end.last
            state.beyond(number, last)
            words[shared.NUMBER] = max(words[shared.NUMBER], last)
        for op in fresh:
            state.apply(op)
        words[shared.NUMBER] = max(words[shared.NUMBER], state.number)
        state.recovering, state.cold, state.intents = False, False, []

    def _best(self, found: list[int], *, cut: bool) -> Journal | None:
        """The newest journal that can be read."""
        for generation in reversed(found):
            opened = Journal(self.directory, generation, read_only=not cut)
            if opened.good:
                if opened.version != journal.VERSION:
                    raise StoreTooNew(
                        f"{opened.path} has format {opened.version}, this dropr knows formats up to "
                        f"{journal.VERSION}; install the newer dropr again (nothing was changed)"
                    )
                return opened
            self.tell("corrupt", {"file": str(opened.path), "error": "the header of this journal is damaged"})
            opened.close()
        if found:
            raise StoreCorrupt(f"{self.directory}: no journal can be read; put it back from a backup")
        return None

    def _torn(self, opened: Journal, size: int, *, cut: bool) -> None:
        """What cannot be read is evidence: it stays beside the new generation."""
        tail = os.pread(opened.fd, size - self._at, self._at)
        if tail.strip(b"\0"):
            self.tell("torn", {"file": str(opened.path), "from": self._at, "bytes": size - self._at})
            if cut:
                disk.put_file(self.directory / f"torn-{opened.path.name}", tail)

    def _recover_logs(self, since: Callable[[Log], Any] | None, *, cut: bool) -> list[Op]:
        """Find the ends of all logs; returns the operations that the journal may have lost."""
        state: Any = self.state
        fresh: list[Op] = []
        for number in state.logs():
            log = self.log(number)

            def each(frame: Frame, records: list[Record], number: int = number, log: Log = log) -> None:
                fresh.extend(state.recovered(number, frame, records, log.word(shared.SEGMENT)))

            known = state.known_end(number) if since is None else since(log)
            log.recover(known, each, cut=cut)
            for op in state.intents:
                if op[1] == number and op[2] > log.end.last:
                    self._redo(log, op, each, cut=cut)
        return fresh

    def _redo(self, log: Log, op: Op, each: Each, *, cut: bool) -> None:
        """Append what the journal promised for several logs at once and this one has not got."""
        if cut:
            first, born, rows, extra = self.state.unpack_intent(op)
            target = log.ready()
            before, size = log.end, sum(len(row[3]) for row in rows)
            data = frame_of(target, first, born, rows, 0, extra)
            log.append(target, before, data, max(first + len(rows) - 1, before.last), len(rows), size)
            disk.flush_file(target.fd)
            log.set_flushed(log.end)
            log.look(before, each)

    def _repair(self) -> None:
        """A process died while it wrote: find the ends of everything anew."""
        generation = int(self.words[shared.GENERATION])
        journal.remove_after(self.directory, generation)
        opened = Journal(self.directory, generation)
        try:
            at = int(self.words[shared.JOURNAL])  # every commit before it was whole
            for _ops, _promised, behind in opened.read(at, os.fstat(opened.fd).st_size):
                at = behind
            os.ftruncate(opened.fd, at)
            self.words[shared.JOURNAL] = at
        finally:
            opened.close()
        if self._journal is None or self._journal.generation != generation:
            self.follow()
        assert self._journal is not None
        self.state, self._at = self._make_state(), journal.START_SIZE  # from the beginning, for its intents
        self.state.recovering = True
        self._read(self._journal, at)
        fresh = self._recover_logs(lambda log: log.flushed if log.flushed.written else None, cut=True)
        self._derive(fresh)
        self.words[shared.BUSY] = 0
        if fresh:
            self.write_journal(fresh, promised=False)
        self.context.log.info("%s: mended after the death of a process", self.directory)

    def _start_over(self) -> None:
        """A flush failed: what was promised since the last good one did not happen. Derive everything anew from what
        is known to be on stable storage (and what was never promised), into a new generation of the journal.
        """
        self.words[shared.SUSPECT] = 1
        generation, good = int(self.words[shared.GENERATION]), int(self.words[shared.JOURNAL_SYNCED])
        old = Journal(self.directory, generation)
        self.state = self._make_state()
        self.state.recovering = self.state.cold = True
        for ops, promised, behind in old.read(journal.START_SIZE, int(self.words[shared.JOURNAL])):
            if behind <= good or not promised:
                for op in ops:
                    self.state.apply(op)
        old.close()
        fresh: list[Op] = []
        for number in self.state.logs():
            log = self.log(number)
            if log.end[:2] != log.flushed[:2]:
                log.fail()

            def each(frame: Frame, records: list[Record], number: int = number, log: Log = log) -> None:
                fresh.extend(self.state.recovered(number, frame, records, log.word(shared.SEGMENT)))

            log.look(self.state.known_end(number), each)
        self._derive(fresh)
        self.state.apply(["lost", generation])
        self._new_generation()
        self.words[shared.SUSPECT] = 0

    def _check_off(self, logs: list[Log]) -> None:
        """Note in the journal, now and then, up to where a log needs no look at the next opening."""
        ops = []
        for log in logs:
            if log.word(shared.SYNC_BYTES) - log.word(shared.CHECKED) > CHECK_BYTES:
                end = log.flushed
                log.set_word(shared.CHECKED, end.bytes)
                ops.append(["end", log.number, *end])
        if ops:
            for op in ops:
                self.state.apply(op)
            with contextlib.suppress(OSError):
                self.write_journal(ops, promised=False)

    def check_off(self, numbers: Iterable[int]) -> None:
        """Note durably that all which these logs tell stands in the journal: before any segment of them goes."""

        def job(commit: Commit) -> None:
            for number in numbers:
                commit.do(["end", number, *self.log(number).flushed])

        self.durable(job)

    # ── generations ──────────────────────────────────────────────────────────────────────────────

    def compact(self) -> None:
        """Begin a new generation of the journal if this one has grown too long."""
        if self._at <= max(JOURNAL_MIN, 3 * self.state.snapshot_size):
            return
        try:
            with self.locked():
                self.follow()
                if self._at > max(JOURNAL_MIN, 3 * self.state.snapshot_size):
                    self.words[shared.BUSY] = 1
                    self._new_generation()
                    self.words[shared.BUSY] = 0
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
            log.set_word(shared.CHECKED, end.bytes)
            self.state.set_known_end(number, log.flushed)
        self.state.number = max(self.state.number, int(self.words[shared.NUMBER]))
        size = journal.create(self.directory, generation, self.state.snapshot())
        if self._journal is not None:
            self._journal.close()
        self._journal, self._at = Journal(self.directory, generation), size
        self.state.snapshot_size = size
        self.words[shared.JOURNAL] = self.words[shared.JOURNAL_SYNCED] = size
        self.words[shared.INTENT] = 0
        self.words[shared.GENERATION] = generation
        journal.remove_before(self.directory, generation)
