"""What running processes of a node tell of themselves, believed exactly as long as they live.

Owns one file for each process in the run directory, with a lock of the operating system on it: the lock goes with the
process, however it ends, and a number that another process got since proves nothing. What the dead left is removed by
the next one of their kind. Must not know what is told.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dropr_core.system.locks import is_held, release_in_child
from dropr_core.system.ownership import open_private


class Presence:
    """The report of this process under ``role``; see `living`."""

    def __init__(self, directory: Path, role: str) -> None:
        self._directory, self._role = directory, role
        self.path = directory / f"{role}-{os.getpid()}.json"
        self._fd: int | None = None

    def announce(self, report: Mapping[str, Any]) -> None:
        """Show the report (with ``pid``) from now on, in place of one before; with the first one, remove what dead
        processes of this role left. Raises OSError.
        """
        if self._fd is None:
            self._sweep()
        temporary = self.path.with_suffix(".new")
        fd = open_private(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # before it has its name: nobody ever sees a report without its lock
            os.write(fd, json.dumps({"pid": os.getpid(), **report}).encode())
            temporary.replace(self.path)
        except BaseException:
            os.close(fd)
            raise
        before, self._fd = self._fd, fd
        if before is None:
            release_in_child(self)
        else:
            os.close(before)

    def _sweep(self) -> None:
        for path in self._directory.glob(f"{self._role}-*.json"):
            with contextlib.suppress(OSError):
                if not is_held(path):
                    path.unlink()

    def withdraw(self) -> None:
        """Take the report back; on a disk that cannot be written to, its lock at least. Safe twice."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.release()

    def release(self) -> None:
        """Give up the lock alone, as a forked child does; safe twice."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def living(directory: Path, role: str) -> Iterator[dict[str, Any]]:
    """The reports of the processes of a role that live now. Changes nothing."""
    for path in sorted(directory.glob(f"{role}-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            if is_held(path):
                yield dict(json.loads(path.read_text(encoding="utf-8")))
