"""Private files: replaced whole, and made durable with their names.

Owns that readers see the old content or the new one, that nobody but the owner sees either, and what has to be flushed
for it. Must not know what the contents mean.
"""

import contextlib
import os
from pathlib import Path

from dropr_core.system.ownership import make_private_directory, open_private

_PART = 1 << 20
"""Bytes in memory at a time."""


def replace_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Make ``text`` the content of ``path`` (mode 0600) in one step. Raises OSError.

    ``durable``: on stable storage when it returns, name included.
    """
    replace_file(path, text.encode(), durable=durable)


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Make ``data`` the content of ``path`` (mode 0600) in one step. Raises OSError.

    ``durable``: on stable storage when it returns, name included.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = open_private(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        try:
            write_at(fd, data, 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # nothing is left behind on a full disk
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def create_text(path: Path, text: str) -> None:
    """Make ``path`` with ``text``, durably and whole, unless it exists: then nothing. Raises OSError.

    Several processes may do it at once; one wins, and nobody ever sees half of it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    replace_text(temporary, text, durable=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_directory(path.parent)


def create_file(path: Path) -> None:
    """An empty file (mode 0600), its name durable. An existing one is left alone. Raises OSError."""
    try:
        os.close(open_private(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """A directory (mode 0700), its name durable. An existing one is left alone. Raises OSError."""
    if not path.is_dir():
        make_private_directory(path)
        sync_directory(path.parent)


def write_at(fd: int, data: bytes | bytearray | memoryview, at: int) -> None:
    """Write all of ``data`` at an offset. Raises OSError; then nobody knows what of it is there."""
    done = os.pwrite(fd, data, at)
    view = memoryview(data)[done:]
    while view:
        at += done
        done = os.pwrite(fd, view, at)
        view = view[done:]


def write_again(fd: int, start: int, stop: int) -> None:
    """Give the disk once more what stands there, so that the next sync tells the truth: of pages that it could not
    write the kernel tells only once, and not to who comes later. Raises OSError.
    """
    while start < stop and (part := os.pread(fd, min(_PART, stop - start), start)):
        write_at(fd, part, start)
        start += len(part)


def sync_file(path: Path) -> None:
    """Put a file on stable storage. Raises OSError: never try again for the same data."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Put the names in a directory on stable storage. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
