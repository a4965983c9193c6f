"""What the processes that write one file tell each other: whose turn it is, and what is not flushed yet.

Owns the file ``<half>.writers``. Must not know what is written, nor who asks.

**Turns.** SQLite has no queue for its lock: who finds it taken naps, and tries the whole beginning of a transaction
again. An flock is looked at for a tenth of that. It is a help and no more: whoever does not get it in time (its holder
may be stopped) goes to SQLite's lock without it.

**Counts.** A commit that its own process flushes after the lock was given back (`Engine.write_flushed`) is seen by
others before it is on stable storage. So it is counted twice: within the transaction, when it is about to be seen, and
when it is flushed. Who reads something and promises it to others looks whether the two counts are the same, and
flushes itself if not. The first count is only written and read by a process that is in a transaction, alone, so all
that it counts is committed; the second may fall back when two write it at once, which costs a flush and nothing else.
"""

import fcntl
import mmap
import os
import threading
import time
from pathlib import Path

from dropr_core.errors import WriteFailed
from dropr_core.system.locks import release_in_child
from dropr_core.system.ownership import open_private

SIZE = 4096
_BEGUN, _FLUSHED, _LAST = 0, 1, 2
COMPANY = 64
"""So many commits after the last one of another process this one reckons with company."""
YIELDS, NAPS, NAP = 3, 40, 0.00005
"""How often a turn is asked for without and with a nap (seconds) before. A transaction takes a twentieth of a
millisecond where nobody waits for the disk within it.
"""
FLUSH_NAPS = 20
"""How many naps the flush of another process is waited for. Unless that one was killed, or the disk is slow, it comes.
"""


class Writers:
    """One process's view. All but `has_company` and `flushed` belong to whoever holds the process's own lock."""

    def __init__(self, path: Path) -> None:
        """``path``: of the database. Nothing is opened yet."""
        self._path = path.with_suffix(".writers")
        self._fd = -1
        self.left = 0
        """For so many commits more this one reckons with company."""
        self._own = int.from_bytes(os.urandom(8), "little")
        """What this one is called among them: in containers several processes may have the same number."""
        self._known = False
        """Whether this process has committed before: the last one was another process for each that begins."""
        self._opening = threading.Lock()
        self._counts: memoryview | None = None
        release_in_child(self)

    def _open(self) -> memoryview | None:
        """The counts; None where there is no room for them."""
        with self._opening:
            if self._counts is None:
                try:
                    # Not the descriptor of the turns: a mapping keeps its own one open, also in a forked child.
                    fd = open_private(self._path, os.O_RDWR | os.O_CREAT)
                    try:
                        os.posix_fallocate(fd, 0, SIZE)  # a page that a full disk cannot give would end the process
                        counts = memoryview(mmap.mmap(fd, SIZE)).cast("Q")
                    finally:
                        os.close(fd)
                    self._fd = open_private(self._path, os.O_RDWR)
                except OSError:
                    return None
                self._counts = counts
            return self._counts

    # ── turns ────────────────────────────────────────────────────────────────────────────────────

    def take_turn(self) -> bool:
        """Wait a moment for this process's turn; whether it has come."""
        if self._counts is None and self._open() is None:
            return False
        for tries in range(YIELDS + NAPS):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if tries < YIELDS:
                    os.sched_yield()
                else:
                    time.sleep(NAP)
            else:
                return True
        return False

    def give_turn(self) -> None:
        """The next one may write."""
        if self._fd >= 0:  # else it was closed meanwhile, and given with that
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    # ── counts ───────────────────────────────────────────────────────────────────────────────────

    @property
    def is_open(self) -> bool:
        """Whether there is room for the counts."""
        return self._counts is not None or self._open() is not None

    def has_company(self) -> bool:
        """Whether other processes have committed of late what is to be flushed."""
        counts = self._counts or self._open()
        if counts is None:
            return False
        if counts[_LAST] == self._own:
            self.left -= self.left > 0
        else:
            self.left, self._known = COMPANY * self._known, True
            counts[_LAST] = self._own
        return self.left > 0

    def met(self) -> None:
        """Others commit through this process (outbox/together.py)."""
        self.left = COMPANY

    def begin(self) -> int:
        """This transaction is about to be seen before it is flushed; its number. Only within a transaction. Raises
        WriteFailed.
        """
        counts = self._counts or self._open()  # closed within this transaction, where the log was in doubt
        if counts is None:
            raise WriteFailed(f"{self._path} cannot be opened any more; nothing was stored; try again")
        counts[_BEGUN] = number = counts[_BEGUN] + 1
        return number

    def arrivals(self) -> int:
        """How many commits there were that `begin` has counted, by whichever process; -1 if nobody can say."""
        counts = self._counts
        return -1 if counts is None else counts[_BEGUN]

    def owed(self) -> int | None:
        """The number of the last commit if there are some that may not be flushed; -1 if nobody can say; None: what can
        be seen is on stable storage. Within a write transaction.
        """
        counts = self._counts
        if counts is None:
            return -1
        begun = counts[_BEGUN]
        return None if begun == counts[_FLUSHED] else begun

    def give_way(self) -> None:
        """Whoever waits for the disk needs a moment of this processor when it is done. The kernel gives it late while
        somebody works without a pause: an `fdatasync` of 0.4 ms took 1.3 beside a process that was busy for 1 ms.
        """
        counts = self._counts
        if counts is not None and counts[_BEGUN] != counts[_FLUSHED]:
            os.sched_yield()

    def may_owe(self) -> bool:
        """Whether something that could be read before may not be flushed. Outside of a transaction: one that is about
        to commit may be counted already, so nothing may be noted as flushed by this.
        """
        counts = self._counts or self._open()
        return counts is None or counts[_BEGUN] != counts[_FLUSHED]

    def await_flush(self, number: int) -> bool:
        """Wait a moment until all commits up to this one are on stable storage; whether they are known to be.

        Who has committed is most likely waiting for the disk now: to sync as well would take longer, and keep the disk
        from others.
        """
        counts = self._counts
        if counts is None or number <= 0:
            return False
        for _ in range(FLUSH_NAPS):
            if number <= counts[_FLUSHED] <= counts[_BEGUN]:
                return True
            time.sleep(NAP)
        return False

    def flushed(self, number: int) -> None:
        """All commits up to this one are on stable storage."""
        counts = self._counts
        if counts is not None:
            noted = counts[_FLUSHED]
            if noted < number or noted > counts[_BEGUN]:
                counts[_FLUSHED] = number

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed. Safe twice."""
        with self._opening:
            self.release()

    def release(self) -> None:
        """`close` in a forked child, so that it holds no turn of its parent, and where nobody gives a lock back."""
        fd, self._fd = self._fd, -1
        self._counts = None
        if fd >= 0:
            os.close(fd)
