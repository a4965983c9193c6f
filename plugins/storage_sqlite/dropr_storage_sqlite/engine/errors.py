"""What went wrong, in dropr's words.

Owns the translation of every error of SQLite into the tree of `dropr_core.errors` (those of the operating system are
in `system.os_errors`); no foreign exception leaves this package. Must not know what the failed operation meant.
"""

import os
from pathlib import Path

import apsw

from dropr_core.errors import (
    DroprError,
    QueueFull,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    WriteFailed,
)
from dropr_core.system.os_errors import NO_HANDLES, NO_ROOM, store_error, store_error_of

_SHARED_MEMORY = frozenset({
    apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP, apsw.SQLITE_IOERR_SHMLOCK,
})  # fmt: skip


def translate(error: Exception, path: Path, errno_of_system: int = 0) -> DroprError:
    """The dropr error that says what ``error`` means for the store at ``path``.

    ``errno_of_system``: the operating system's last error number as the connection knows it.
    """
    if isinstance(error, DroprError):
        return error
    if isinstance(error, apsw.FullError) or (_of_shared_memory(error) and _no_room(path)):
        return QueueFull(f"{path}: the disk is full ({error}); free some space, nothing else is needed")
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)):
        return StoreBusy(
            f"{path}: another process has kept the store locked for too long; look who holds it open "
            f"(fuser {path}), then try again"
        )
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError, apsw.FormatError)):
        return StoreCorrupt(
            f"{path} is damaged ({error}); nothing was deleted; 'dropr fsck' tells how bad it is, and with the node "
            "stopped 'dropr fsck --repair' saves what can be read (docs/operations/README.md: Damage)"
        )
    if isinstance(error, (apsw.IOError, apsw.CantOpenError)) and errno_of_system in NO_ROOM | NO_HANDLES:
        return store_error_of(errno_of_system, f"{path}: {error} ({os.strerror(errno_of_system)})")
    if isinstance(error, (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError)):
        return StoreReadOnly(
            f"{path} cannot be opened for writing ({error}); check the owner and mode of the file and its directory, "
            "and whether the disk is mounted read-only"
        )
    if isinstance(error, apsw.IOError):
        return WriteFailed(
            f"{path}: the disk reported an error ({error}); nothing was promised by this call. The file is opened and "
            "checked again before the next write; look at the kernel's log"
        )
    if isinstance(error, OSError):
        return store_error(error, path)
    return StoreError(f"{path}: {type(error).__name__}: {error}")


def failed_to_sync(error: Exception) -> bool:
    """Whether SQLite could not sync, for whatever reason: also for want of room, what was written may be lost."""
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_FSYNC


def _of_shared_memory(error: Exception) -> bool:
    """Whether the index in shared memory could not be made or grown; SQLite keeps why to itself."""
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _SHARED_MEMORY


def _no_room(path: Path) -> bool:
    """Whether not a block of the file system is free for us."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False
