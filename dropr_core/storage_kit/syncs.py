"""Whether a sync of some file may have failed without anybody left who knows.

The kernel tells of pages that it could not write once: to each descriptor that was open then, and to one opened later
only if nobody had been told before. After that it takes them for written. So who opens the file later syncs over a
hole, hears that all is well, and promises what a power cut loses. What the kernel forgets is kept here.

Owns a small file beside the one that is synced, mapped by each process: two counts, of errors that were met and up to
which of them the file has been mended since, and a place for each process, in which stands how many of its syncs are
under way. A place belongs to whoever holds the lock on its byte. One that is marked and that nobody holds is of a
process that was killed within a sync, perhaps the one that was told: a sync of a dying disk takes half a minute, so it
is there that somebody kills it.

All this survives every process. It need not survive a power cut: after that a file is what is on the disk. Where this
file cannot be opened nobody is in doubt. Must not know what is synced, nor how a hole is mended.
"""

import mmap
import os
import threading
from pathlib import Path

from dropr_core.system.locks import are_free, lock_bytes, release_in_child, unlock_bytes
from dropr_core.system.ownership import open_private

SIZE = 4096
_MET, _MENDED, _NOWHERE, _FIRST = 0, 1, 7, 8
PLACES = SIZE // 8 - _FIRST
"""Processes beyond so many are not told from those that were killed while they did nothing."""


class Syncs:
    """One process's view. Safe for threads."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self._path = path
        self._mutex = threading.Lock()
        self._fd, self._under_way, self._closing = -1, 0, False
        self._at = _NOWHERE
        """The word of this process's place; one that nobody looks at if it has none."""
        self._words: memoryview[int] | None = None
        release_in_child(self)

    # ── what may be forgotten ────────────────────────────────────────────────────────────────────

    def in_doubt(self) -> bool:
        """Whether somebody has met an error since the file was mended last."""
        words = self._words
        return words is not None and words[_MET] != words[_MENDED]

    def met(self) -> None:
        """A sync has failed, whatever else is going to be done about it."""
        # Two who count at once may count one. That is enough: whoever mends counts up to what stood here before.
        words = self._words
        if words is not None:
            words[_MET] = (words[_MET] + 1) & 0xFFFFFFFF

    def before_mending(self) -> int | None:
        """What `mended` needs; to be asked before the mending begins."""
        words = self._words
        return None if words is None else words[_MET]

    def mended(self, met: int | None) -> None:
        """The file is whole, and on stable storage: errors that were met before are settled."""
        words = self._words
        if words is not None and met is not None:
            words[_MENDED] = met

    # ── syncs of this process, and of those that died ────────────────────────────────────────────

    def begin(self) -> None:
        """A sync begins; its `end` follows whatever comes. If this process dies in between, it is seen."""
        with self._mutex:
            self._under_way += 1
            if self._words is not None:
                self._words[self._at] = self._under_way

    def end(self) -> None:
        """One that `begin` began is over; an error of it was told to `met` before."""
        with self._mutex:
            self._under_way -= 1
            if self._words is not None:
                self._words[self._at] = self._under_way
                if self._closing and not self._under_way:
                    self._let_go()

    def look(self) -> bool:
        """See who died within a sync: to be called whenever a descriptor was opened that is going to be synced by.
        Whether there was anybody; their error is met with that.
        """
        found = False
        with self._mutex:
            words, fd = self._words, self._fd
            if words is not None:
                marked = [at for at, syncs in enumerate(words.tolist()) if syncs and at >= _FIRST and at != self._at]
                for at in marked:
                    if are_free(fd, SIZE + at):
                        found = True
                        self.met()  # before anybody can take it for the place of a living one
                        if lock_bytes(fd, SIZE + at):
                            words[at] = 0
                            unlock_bytes(fd, SIZE + at)
        return found

    def is_alone(self) -> bool:
        """Whether no other process has a place."""
        with self._mutex:
            return self._words is not None and are_free(self._fd, SIZE + _FIRST, PLACES)

    # ── opening and closing ──────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Take a place: before anything is opened that is going to be synced by. Safe twice."""
        if self._words is not None:
            return
        with self._mutex:
            if self._words is None:
                try:
                    words, fd = self._map(), open_private(self._path, os.O_RDWR)
                except OSError:
                    return
                self._fd, self._words, self._closing = fd, words, False
                self._at = _take_place(fd, words)
                words[self._at] = self._under_way

    def _map(self) -> "memoryview[int]":
        # Not by the descriptor of the lock: a mapping keeps its own one open, also in a forked child.
        fd = open_private(self._path, os.O_RDWR | os.O_CREAT)
        try:
            os.posix_fallocate(fd, 0, SIZE)  # a page that a full disk cannot give would end the process
            return memoryview(mmap.mmap(fd, SIZE)).cast("Q")
        finally:
            os.close(fd)

    def close(self) -> None:
        """Give the place back, once the last sync that is under way is over. Safe twice."""
        with self._mutex:
            self._closing = True
            if not self._under_way:
                self._let_go()

    def release(self) -> None:
        """In a forked child, where the place is its parent's: forget it, and all that its threads were doing."""
        self._mutex, self._under_way = threading.Lock(), 0
        self._let_go()

    def _let_go(self) -> None:
        fd, self._fd, self._at, self._words = self._fd, -1, _NOWHERE, None
        if fd >= 0:
            os.close(fd)


def _take_place(fd: int, words: "memoryview[int]") -> int:
    """The word of a place that is nobody's; `_NOWHERE` if there is none."""
    first = int.from_bytes(os.urandom(2), "little")  # so that nobody has to ask for all that are taken
    for number in range(PLACES):
        at = _FIRST + (first + number) % PLACES
        if not words[at] and lock_bytes(fd, SIZE + at):
            if not words[at]:
                return at
            unlock_bytes(fd, SIZE + at)
    return _NOWHERE
