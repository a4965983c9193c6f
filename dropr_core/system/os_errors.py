"""What an error of the operating system means for something that is kept on a disk.

Owns the one table of errno → error that stores and large bodies share. Must not know what is kept.

* no room, or no file handles left: `QueueFull`. Nothing was written and nothing has to be distrusted; it passes.
* not allowed: `StoreReadOnly`. It passes only when somebody changes something.
* everything else (the disk itself, no memory): `WriteFailed`. What was being written is not trusted again.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropr_core.errors import QueueFull, StoreError, StoreReadOnly, WriteFailed

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_HANDLES = frozenset({errno.EMFILE, errno.ENFILE})
NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def store_error(error: OSError, path: Path) -> StoreError:
    """The error to raise for ``error`` at ``path``; raise it from ``error``."""
    return store_error_of(error.errno or 0, f"{path}: {error.strerror or error}")


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """What the system refuses in this block is raised as the error for it, at ``path``."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def store_error_of(number: int, what: str) -> StoreError:
    """The error for an errno; ``what``: where it happened and what the system said."""
    if number in NO_ROOM:
        return QueueFull(f"{what}; free some space, nothing else is needed")
    if number in NO_HANDLES:
        return QueueFull(
            f"{what}; this process or machine has no file handles left: raise the limit (ulimit -n) or close some, "
            "nothing else is needed"
        )
    if number in NOT_ALLOWED:
        return StoreReadOnly(f"{what}; check owner and mode of the file and its directory, and how its disk is mounted")
    return WriteFailed(f"{what}; nothing was promised by this call; look at the kernel's log")


def wants_room(full: QueueFull) -> bool:
    """Whether room on the disk would help: it was the system that said no, and not for want of file handles."""
    cause = full.__cause__
    return cause is not None and not (isinstance(cause, OSError) and cause.errno in NO_HANDLES)
