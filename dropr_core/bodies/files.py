"""Files of large bodies, opened: to be read from the beginning to the end, or to be sent in pieces.

Owns how they are called, the check of the digest while a body is read, the trailer of files that are sent
(docs/formats/bodies.md), and what an error of the file system means. Must not know where bodies lie or when they go
(store.py).
"""

import contextlib
import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from dropr_core.contracts.bodies import Load, Tail
from dropr_core.errors import StoreCorrupt
from dropr_core.model.chunk_digest import LEAF, SIZE, LeafHash, count
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId, format_id
from dropr_core.system.os_errors import store_error

PIECE = 1024 * 1024
"""Bytes read and written at once."""


def name_of(identity: MessageId, reference: Reference) -> str:
    """The file name of a body."""
    return f"{identity.hex()}-{reference.digest[:8].hex()}"


def id_in(name: str) -> MessageId:
    """The message of a file; empty if its name says none."""
    try:
        return MessageId(bytes.fromhex(name.partition("-")[0]))
    except ValueError:
        return MessageId(b"")


def files_in(directory: Path) -> Iterator[Path]:
    """The files of a directory, which need not be there."""
    try:
        yield from (path for path in directory.iterdir() if path.is_file())
    except FileNotFoundError:
        return


def folders_in(directory: Path) -> Iterator[Path]:
    """The directories in a directory, which need not be there."""
    try:
        yield from (path for path in directory.iterdir() if path.is_dir())
    except FileNotFoundError:
        return


class BodyFile(Load):
    """A file that is being sent."""

    def __init__(self, fd: int, reference: Reference) -> None:
        self._fd, self.reference = fd, reference
        self._readers, self._lock, self._closed = 0, threading.Lock(), False

    def leaves(self, offset: int, size: int) -> bytes:
        """The digests of the leaves of a piece, as they were when the body was written. Raises OSError."""
        return self.read(self.reference.size + offset // LEAF * SIZE, count(size) * SIZE)

    def piece(self, offset: int, size: int) -> "PieceOf":
        """A piece as the tail of a request."""
        return PieceOf(self, offset, size)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes; raises OSError."""
        with self._reading() as fd:
            try:
                data = os.pread(fd, size, offset)
                if len(data) != size:
                    raise OSError(errno.EIO, "the file of the body is shorter than it was")
            except OSError as error:
                self.failure = error
                raise
        return data

    def send(self, line: int, offset: int, size: int) -> int:
        """Have the kernel send some bytes into a socket; how many it took. Raises OSError, of the socket as well."""
        with self._reading() as fd:
            return os.sendfile(line, fd, offset, size)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[int]:
        """The descriptor, which nobody closes meanwhile. Raises OSError."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the body is not being sent any more")
            self._readers += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._readers -= 1
                last = self._closed and self._readers == 0
            if last:
                os.close(self._fd)

    def passed(self, offset: int, size: int) -> None:
        """The memory of the machine that holds these bytes is given to what needs it more."""
        with self._lock, contextlib.suppress(OSError):  # it is a hint
            if not self._closed:
                os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Let go of the file, at once or when the last reader has ended; safe twice."""
        with self._lock:
            idle = not self._closed and self._readers == 0
            self._closed = True
        if idle:
            os.close(self._fd)


class PieceOf(Tail):
    """A piece of a file that is being sent."""

    def __init__(self, load: BodyFile, offset: int, size: int) -> None:
        self._load, self._offset, self.size = load, offset, size

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of the piece; raises OSError."""
        return self._load.read(self._offset + offset, size)

    def send(self, line: int, offset: int, size: int) -> int:
        """See `contracts.transport.FileTail`."""
        return self._load.send(line, self._offset + offset, size)


class _Checked(io.RawIOBase):
    """A body that is compared with its digest while it is read from the beginning to the end."""

    _fd = -1

    def __init__(self, path: Path, identity: MessageId, reference: Reference) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._path, self._identity, self._reference = path, identity, reference
        self._digest, self._read, self._in_order = LeafHash(), 0, True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_END:  # the end of the body; the file may go on behind it
            offset, whence = offset + self._reference.size, os.SEEK_SET
        position = os.lseek(self._fd, offset, whence)
        if position != self._read:
            self._in_order = position == 0
            self._digest, self._read = LeafHash(), 0
        return position

    def tell(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR)

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: Any, /) -> int:
        room = max(0, self._reference.size - self.tell())
        got = os.readv(self._fd, [memoryview(buffer)[:room]])
        if self._in_order:
            self._digest.update(memoryview(buffer)[:got])
            self._read += got
            if self._read == self._reference.size and self._digest.digest() != self._reference.digest:
                raise StoreCorrupt(
                    f"the body of message {format_id(self._identity)} is damaged at rest: its digest does not match: "
                    f"{self._path}"
                )
        return got

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:  # -1 also where it could not be opened
            os.close(fd)
        super().close()


def trailer_of(reference: Reference) -> int:
    """Bytes that stand behind a body in ``sent/``: the digests of its leaves."""
    return count(reference.size) * SIZE


def open_checked(path: Path, identity: MessageId, reference: Reference, more: int = 0) -> BinaryIO:
    """A body to be read; ``more``: bytes that stand behind it. Raises StoreCorrupt if it is gone or too short."""
    try:
        file = _Checked(path, identity, reference)
    except FileNotFoundError:
        raise StoreCorrupt(f"the body of message {format_id(identity)} is missing: {path}") from None
    except OSError as error:
        raise store_error(error, path) from error
    if os.fstat(file.fileno()).st_size != reference.size + more:
        file.close()
        raise StoreCorrupt(f"the body of message {format_id(identity)} has not its {reference.size} bytes: {path}")
    return cast("BinaryIO", io.BufferedReader(file, PIECE))
