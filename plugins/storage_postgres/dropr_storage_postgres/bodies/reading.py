"""Bodies read back: from the beginning to the end with a check of the digest, from any place, or in pieces to be sent.

Owns what is in memory of a body that is read: a piece of it. Must not know when bodies go.
"""

import errno
import io
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from dropr_core.contracts.bodies import Load, Tail
from dropr_core.errors import Closed, DroprError, StoreCorrupt, StoreError
from dropr_core.model.chunk_digest import LeafHash
from dropr_core.model.envelope import Reference
from dropr_storage_postgres.bodies import rows
from dropr_storage_postgres.bodies.rows import Row
from dropr_storage_postgres.bodies.sessions import BodySessions

READ = 1024 * 1024
"""Bytes read at once."""


class RowLoad(Load):
    """Rows that are being sent."""

    def __init__(
        self, sessions: BodySessions, ahead: ThreadPoolExecutor, row: Row, reference: Reference, what: str
    ) -> None:
        """``ahead``: reads pieces before they are asked for. ``what``: whose body it is."""
        self._sessions, self._ahead, self._row, self.reference, self._what = sessions, ahead, row, reference, what
        self._closed = False

    def leaves(self, offset: int, size: int) -> bytes:
        """The digests of the leaves of a piece."""
        return self._sessions.read(lambda connection: rows.leaves(connection, self._row, offset, size, self._what))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes of the body."""
        if self._closed:
            raise OSError(errno.EBADF, "the body is not being sent any more")
        try:
            return self._sessions.read(lambda connection: rows.get(connection, self._row, offset, size, self._what))
        except StoreError as error:
            self.failure = error
            raise

    def piece(self, offset: int, size: int) -> "RowTail":
        """A piece as the tail of a request, read at once by a thread: a transport must not wait for a database."""
        try:
            return RowTail(self._ahead.submit(self.read, offset, size), size)
        except RuntimeError:  # it was shut down
            raise Closed(f"{self._sessions.name} was closed") from None

    def close(self) -> None:
        """What is being read ends by itself."""
        self._closed = True


class RowTail(Tail):
    """A piece of a body that is being sent."""

    def __init__(self, data: "Future[bytes]", size: int) -> None:
        self._data, self.size = data, size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes of the piece."""
        try:
            return self._data.result()[offset : offset + size]
        except DroprError as error:
            raise OSError(errno.EIO, f"the body cannot be read: {error}") from error


class _Checked(io.RawIOBase):
    """A body that is compared with its digest while it is read from the beginning to the end."""

    def __init__(self, sessions: BodySessions, row: Row, reference: Reference, what: str) -> None:
        self._sessions, self._row, self._reference, self._what = sessions, row, reference, what
        self._digest, self._read, self._in_order = LeafHash(), 0, True
        self._at = 0
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._reference.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = base + offset
        if self._at != self._read:
            self._in_order = self._at == 0
            self._digest, self._read = LeafHash(), 0
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._next(min(len(view), READ))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = list(iter(lambda: self._next(READ), b""))
        return b"".join(parts)

    def _next(self, most: int) -> bytes:
        with self._lock:
            at, size = self._at, min(most, max(0, self._reference.size - self._at))
            data = self._sessions.read(lambda connection: rows.get(connection, self._row, at, size, self._what))
            self._at += size
            if self._in_order:
                self._digest.update(data)
                self._read += size
                if size and self._read == self._reference.size and self._digest.digest() != self._reference.digest:
                    raise StoreCorrupt(f"{self._what} is damaged at rest: its digest does not match")
            return data


def open_checked(sessions: BodySessions, row: Row, reference: Reference, what: str) -> BinaryIO:
    """A body to be read; ``what``: whose it is."""
    return cast("BinaryIO", io.BufferedReader(_Checked(sessions, row, reference, what), READ))
