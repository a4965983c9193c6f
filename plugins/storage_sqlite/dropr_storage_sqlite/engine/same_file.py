"""Whether a path still leads to the file that was opened.

Owns the identity of one file. Must not know what is in it.
"""

import ctypes
from pathlib import Path

import apsw

from dropr_core.errors import StoreGone
from dropr_storage_sqlite.engine.errors import translate


class SameFile:
    """The file that stands under a path now."""

    def __init__(self, path: Path) -> None:
        """Raises StoreGone, and what else `translate` makes of it."""
        self._path = path
        self._has_moved = ctypes.c_int()
        self._answer = ctypes.addressof(self._has_moved)
        self._inode = self._identify()

    def has_moved(self, connection: apsw.Connection) -> bool:
        """Whether the path leads elsewhere now. SQLite compares the same as `check`, in half the time."""
        connection.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, self._answer)
        return self._has_moved.value != 0

    def check(self) -> None:
        """Raise StoreGone if it is another one."""
        if self._identify() != self._inode:
            raise StoreGone(f"{self._path} is another file than the one that was opened; restart to use it")

    def _identify(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise StoreGone(
                f"{self._path} is gone; put it back, or remove store.json to begin with an empty one"
            ) from None
        except OSError as error:
            raise translate(error, self._path) from error
        return found.st_dev, found.st_ino
