"""What durable calls wait for: logs, and the journal, that have to be on stable storage before they return.

Owns the descriptors to flush by, the order (the journal before any log), and what is noted afterwards. No lock between
processes is held while something is flushed. Must not know what a failure means for the state.
"""

import os
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from dropr_core.errors import WriteFailed
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.locking import HalfLock
from dropr_storage_fs.engine.replica import Replica
from dropr_storage_fs.engine.state import HalfState
from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.segment import End, Segment

S = TypeVar("S", bound=HalfState)
TOGETHER, PID_BITS = 16, (1 << 32) - 1
"""So many flushes of a log are shared after another process wrote to it; the bits of a process's number."""
HANDLES = 32
"""Descriptors of logs that one call holds at most while it flushes."""


class _LogFlush(NamedTuple):
    """One log to flush: what is promised, and how often it was cut before."""

    log: Log
    end: End
    segment: Segment | None
    """None: to be opened when it is flushed."""
    cuts: int


class Promise(Generic[S]):
    """What the callers of some commits were promised."""

    def __init__(self, replica: Replica[S], lock: HalfLock) -> None:
        self._replica, self._lock = replica, lock
        self._logs: list[_LogFlush] = []
        self._journalled, self._journal_fd, self._upto, self._generation = False, -1, 0, 0
        self._problem: OSError | None = None
        self._shared = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self._logs and not self._journalled and self._problem is None

    def collect(self, commits: Sequence[Commit[S]]) -> bool:
        """Take the descriptors; under the half's lock. Returns whether the journal is flushed, too."""
        if len(commits) == 1:  # by far the most
            touched, self._journalled = commits[0].touched, commits[0].journalled
        else:
            touched = {number: log for commit in commits for number, log in commit.touched.items()}
            self._journalled = any(commit.journalled for commit in commits)
        header = self._replica.shared.slots
        if touched and header[shared.INTENT] > header[shared.JOURNAL_SYNCED]:
            self._journalled = True
        try:
            if self._journalled:
                opened = self._replica.opened
                self._upto, self._generation = header[shared.JOURNAL], opened.generation
                self._journal_fd = os.dup(opened.fd)
            for log in touched.values():
                end = log.end
                segment = log.pin(end) if len(self._logs) < HANDLES else None
                self._logs.append(_LogFlush(log, end, segment, log.slots.get(shared.CUTS)))
        except OSError as error:
            self._problem = error
            return False
        return self._journalled

    # ── several processes, one flush ─────────────────────────────────────────────────────────────

    def has_company(self) -> bool:
        """Whether other processes write to the one log that is to be flushed: who wrote there last, or before the last
        time, was another. Under the half's lock.
        """
        if len(self._logs) != 1 or self._journalled or self._problem is not None:
            return False
        slots, at = self._replica.shared.slots, self._logs[0].log.slots.row + shared.WRITER
        known, mine = slots[at], os.getpid()
        if known == mine:
            return False
        # The upper half says how many more flushes are asked for together after the last change of hands.
        left = TOGETHER if known and known & PID_BITS != mine else max(0, (known >> 32) - 1)
        slots[at] = left << 32 | mine
        return left > 0

    def share(self) -> None:
        """Another process has flushed meanwhile, and perhaps this too; if not, flush for everybody who has written.
        Under the half's lock.
        """
        one = self._logs[0]
        now, header = one.log.end, self._replica.shared.slots
        if one.log.flushed[:2] >= one.end[:2] or one.log.slots.get(shared.CUTS) != one.cuts:
            self._shared = True  # or given up; `confirm` says so
        elif now.segment == one.end.segment and header[shared.INTENT] <= header[shared.JOURNAL_SYNCED]:
            self._logs[0] = one._replace(end=now)

    def keep(self) -> OSError | None:
        """Flush it all; the first error. The journal first: what stands in several logs is never flushed before its
        intent.
        """
        try:
            if self._problem is not None or self._shared:
                return self._problem
            if self._journal_fd >= 0:
                disk.flush_file(self._journal_fd)
            for one in self._logs:
                if one.segment is not None:
                    disk.flush_file(one.segment.fd)
                else:
                    self._flush_late(one)
        except OSError as error:
            return error
        return None

    def _flush_late(self, one: _LogFlush) -> None:
        """Of a call that wrote into very many logs: one after the other, each with a descriptor of its own."""
        with self._lock:
            segment = one.log.pin(one.end)
        try:
            disk.flush_file(segment.fd)
        finally:
            segment.unpin()

    def confirm(self) -> list[Log]:
        """Note what is on stable storage; under the half's lock. Raises WriteFailed if it was given up meanwhile."""
        for one in self._logs:
            one.log.confirm(one.end, one.cuts)
        header = self._replica.shared
        if self._journalled and self._generation == header[shared.GENERATION]:
            header[shared.JOURNAL_SYNCED] = max(header[shared.JOURNAL_SYNCED], self._upto)
        elif self._journalled and self._generation in self._replica.state.lost:
            directory = self._replica.directory
            raise WriteFailed(f"{directory}: another process met a disk error while this was written")
        return [one.log for one in self._logs]

    def close(self) -> None:
        """Give the descriptors back."""
        for one in self._logs:
            if one.segment is not None:
                one.segment.unpin()
        if self._journal_fd >= 0:
            os.close(self._journal_fd)
