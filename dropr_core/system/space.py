"""Room on the disk: the free-space floor and the reserve.

Owns how much must stay free, and a file of blocks that is given up when the disk is full so that
acknowledgements, receipts and wipes can still commit. It is made when a store is opened and, after it was given up, as
soon as there is room again: with a `check` or a sweep. For any storage on a disk; must not know what it keeps.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from dropr_core.errors import QueueFull
from dropr_core.system.clock import Clock
from dropr_core.system.os_errors import wants_room
from dropr_core.system.ownership import open_private

GIB = 1024**3
CHECK_EVERY = 0.5
CHECK_CALLS = 1000


def floor_of(total: int, min_free: int | None) -> int:
    """Bytes that have to stay free on a disk of ``total`` bytes; None: the larger of 1 GiB and 2 %."""
    return max(GIB, total // 50) if min_free is None else min_free


def check_free(directory: Path, more: int, min_free: int | None) -> None:
    """Raise QueueFull if ``more`` bytes in a directory (there or not yet) would leave less free than the floor."""
    usage = shutil.disk_usage(directory if directory.exists() else directory.parent)
    floor = floor_of(usage.total, min_free)
    if usage.free - more < floor:
        raise QueueFull(
            f"{directory}: {usage.free} bytes are free, {more} more would go below the floor of {floor}; free some "
            "space or lower limits.min_free"
        )


class _Answer(NamedTuple):
    """What the system said, and when it was asked."""

    asked: float
    free: int
    total: int


class Space:
    """The free space of one directory, asked for at most twice a second."""

    def __init__(self, directory: Path, clock: Clock, floor: int | None, reserve: int, name: str) -> None:
        self._directory, self._clock, self._floor = directory, clock, floor
        self._reserve, self._size = directory / name, reserve
        self._answer = _Answer(float("-inf"), 0, 0)
        """Published whole, when it is there: another thread sees the old one or the new one."""
        self._calls = 0

    def check(self) -> None:
        """Raise QueueFull if less than the floor is free. Makes the reserve again where it was given up."""
        if self._floor == 0 and not self._size:
            return
        self._calls -= 1
        now = self._clock.now()
        answer = self._answer
        if self._calls <= 0 or now - answer.asked >= CHECK_EVERY or now < answer.asked:
            answer = self._ask(now)
        floor = floor_of(answer.total, self._floor)
        if floor and answer.free < floor:
            self._calls = 0  # look again at once the next time: room may have been made
            raise QueueFull(
                f"{self._directory}: only {answer.free} bytes are free, the floor is {floor}; free some space "
                "or lower min_free, nothing else is needed"
            )

    @property
    def floor(self) -> int:
        """Bytes that have to stay free."""
        return floor_of(self._answer.total, self._floor)

    def _ask(self, now: float) -> _Answer:
        self.keep_reserve()
        try:
            found = os.statvfs(self._directory)
            answer = _Answer(now, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
        except OSError:  # a vanished directory is found and named where the file is looked at
            answer = _Answer(now, 1 << 62, 0)
        self._answer, self._calls = answer, CHECK_CALLS
        return answer

    def keep_reserve(self) -> None:
        """Make the reserve file if it is missing and there is room. A help, not a promise: never raises."""
        if not self._size or self._reserve.exists():
            return
        temporary = self._reserve.with_suffix(f".{os.getpid()}.new")
        try:
            fd = open_private(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            try:
                answer = os.fstatvfs(fd)
                if answer.f_bavail * answer.f_frsize < 4 * self._size:
                    raise OSError(28, "no room for a reserve")
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)
            temporary.replace(self._reserve)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def relieve(self, full: QueueFull) -> bool:
        """Give the reserve up if it was the disk that is full. Returns whether that made room: then try again."""
        return wants_room(full) and self.use_reserve()

    def use_reserve(self) -> bool:
        """Give the reserve's blocks back to the disk. Returns whether there was one."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True
