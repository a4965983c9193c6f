"""How a half is opened: alone, beside others, or only to look.

Owns who recovers: the first one at a half that nobody has open. Must not know what is recovered.
"""

import fcntl
import os
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_storage_fs.files import disk
from dropr_storage_fs.files.shared import Shared

MARKER = "store-fs.json"


class Opening:
    """The part of `Half` that opens its files."""

    directory: Path
    context: Context
    tuning: Any
    _lock_fd: int
    _life_fd: int
    _inode: tuple[int, int]
    _alone: bool
    _shared: Any
    _recover: Any

    def _open(self) -> None:
        if self.context.read_only:
            self._open_to_look()
            return
        disk.make_directory(self.directory)
        disk.make_directory(self.directory / "logs")
        with disk.alone(self.directory / "open.lock", self.tuning.busy):
            self._life_fd = disk.open_file(self.directory / "life.lock", write=True, create=True)
            self._lock_fd = disk.open_file(self.directory / "write.lock", write=True, create=True)
            found = os.fstat(self._lock_fd)
            self._inode = (found.st_dev, found.st_ino)
            only = _lock_now(self._life_fd)
            self._shared = Shared(self.directory / "shared")
            if only:
                self._shared.clear()
                self._recover(cut=True, made=(self.directory.parent / MARKER).exists())
            fcntl.flock(self._life_fd, fcntl.LOCK_SH)

    def _open_to_look(self) -> None:
        """Follow those who have it open; without any (a copy of a dead machine), read what there is."""
        life = self.directory / "life.lock"
        if life.exists() and (self.directory / "shared").exists():
            self._life_fd = disk.open_file(life)
            if not _lock_now(self._life_fd):
                self._lock_fd = disk.open_file(self.directory / "write.lock")
                self._shared = Shared(self.directory / "shared", read_only=True)
                return
            fcntl.flock(self._life_fd, fcntl.LOCK_UN)
        self._alone = True
        self._shared = Shared(None)
        self._recover(cut=False, made=True)


def _lock_now(fd: int) -> bool:
    """Take a lock alone, if nobody has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
