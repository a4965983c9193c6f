"""Calls of the operating system.

Owns whole writes, flushes of files and directories, and files made in one step. The only place of this package that
flushes anything. Must not know what is written.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from dropr_core.system.files import write_again, write_at
from dropr_core.system.ownership import make_private_directory, open_private


def flush_file(fd: int) -> None:
    """Put a file's data on stable storage. Raises OSError: never call it again for the same data."""
    os.fdatasync(fd)


def flush_cut(fd: int) -> None:
    """Put a file on stable storage that was made shorter. Raises OSError."""
    os.fsync(fd)


def flush_directory(path: Path) -> None:
    """Put the names of a directory on stable storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """A directory, durably; fine if it is there."""
    if not path.is_dir():
        make_private_directory(path)
        flush_directory(path.parent)


def open_file(path: Path, *, write: bool = False, create: bool = False) -> int:
    """A file descriptor. Raises OSError."""
    how = os.O_RDWR if write else os.O_RDONLY
    return open_private(path, how | (os.O_CREAT if create else 0))


@contextlib.contextmanager
def make_file(path: Path) -> Iterator[int]:
    """The descriptor of a file that is written into; behind the block it is there, whole and durable. If the block
    raises there is none. Raises OSError.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        fd = open_file(temporary, write=True, create=True)
        try:
            os.ftruncate(fd, 0)
            yield fd
            flush_file(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a full disk its room is needed
            temporary.unlink()
        raise
    flush_directory(path.parent)


def put_file(path: Path, data: bytes) -> None:
    """Make a file with ``data`` in one step, durably. Raises OSError."""
    with make_file(path) as fd:
        write_at(fd, data, 0)


def allocate(fd: int, size: int) -> None:
    """Make a file so long, its blocks taken: what is mapped can be written then. Raises OSError."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        have = os.fstat(fd).st_size
        if have < size:
            write_at(fd, bytes(size - have), have)


__all__ = [
    "allocate", "flush_cut", "flush_directory", "flush_file", "make_directory", "make_file", "open_file", "put_file",
    "write_again", "write_at",
]  # fmt: skip
