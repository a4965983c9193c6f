"""Bodies on their way in: pieces in any order, one file, resumed after any break.

Owns the files ``….part`` of `bodies.py`. Must not know frames, or who may send what.

Each piece came in a frame that was signed, digest of the piece included: what this process wrote
itself is what the sender sent. What stood in a part file before survived the death of a process, but a
power cut may have left anything in it. So a body that was resumed is read once more at its end and
compared with the digest that its sender promised: if it differs, it is begun anew.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

from dropr_core.bodies import PIECE, Bodies, trouble, write_all
from dropr_core.envelope import Reference
from dropr_core.errors import BadBody, QueueFull, StoreBusy, StoreError
from dropr_core.files import sync_directory
from dropr_core.names import MessageId, format_id

OPEN = 32
"""Part files kept open at once."""

AHEAD = 16 * 1024 * 1024
"""Bytes kept in memory of pieces that overtook others; what goes beyond is sent again."""

SYNC_EVERY = 64 * 1024 * 1024
"""Bytes after which the disk is given work, so that the end has not all of it."""


class Arriving:
    """One body on its way in."""

    def __init__(self, final: Path, identity: MessageId, reference: Reference) -> None:
        self._final, self._part = final, final.with_name(final.name + ".part")
        self._identity, self._reference = identity, reference
        self._lock = threading.Lock()
        self._ahead: dict[int, bytes | memoryview] = {}
        self._fd = -1
        self._offset = self._synced = 0
        self._resumed = False

    def have(self) -> int:
        """How many bytes are here, without a gap; all of them only if they are complete and durable."""
        with self._lock:
            if self._done():
                return self._reference.size
            if self._fd < 0 and not self._part.exists():
                return 0  # a question alone makes no file
            try:
                if self._opened() >= self._reference.size:
                    # Killed between the last piece and the name: nobody would send anything any more.
                    self._complete()
            except BadBody:
                return self._opened()
            except OSError as error:
                raise self._failed(error) from error
            return self._offset

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Take a piece; how many bytes are here now. The last one makes the body complete and durable.

        Raises BadBody if all of it has another digest (it begins anew then), StoreError.
        """
        with self._lock:
            if self._done():
                return self._reference.size
            try:
                have = self._opened()
                if offset > have:
                    if sum(map(len, self._ahead.values())) + len(data) <= AHEAD:
                        self._ahead[offset] = bytes(data)
                    return have
                self._append(data[have - offset :])
                while (piece := self._ahead.pop(self._offset, None)) is not None:
                    self._append(piece)
                if self._offset >= self._reference.size:
                    self._complete()
            except OSError as error:
                raise self._failed(error) from error
            return self._offset

    def _failed(self, error: OSError) -> StoreError:
        self._close()
        failed = trouble(error, self._part)
        if not isinstance(failed, QueueFull):
            # After a failed write or fsync the file is not trusted again: all of it comes anew.
            with contextlib.suppress(OSError):
                self._part.unlink()
        return failed

    def _done(self) -> bool:
        return self._fd < 0 and self._final.exists()

    def _opened(self) -> int:
        if self._fd >= 0:
            return self._offset
        fd = os.open(self._part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreBusy(f"{self._part} is being written by another process") from None
        offset = os.fstat(fd).st_size
        if offset > self._reference.size:
            os.ftruncate(fd, 0)
            offset = 0
        os.lseek(fd, offset, os.SEEK_SET)
        self._fd, self._offset, self._synced, self._resumed = fd, offset, offset, offset > 0
        return offset

    def _append(self, data: bytes | memoryview) -> None:
        data = data[: self._reference.size - self._offset]
        write_all(self._fd, data)
        self._offset += len(data)
        if self._offset - self._synced >= SYNC_EVERY:
            os.fdatasync(self._fd)
            self._synced = self._offset

    def _complete(self) -> None:
        if self._resumed and self._digest() != self._reference.digest:
            os.ftruncate(self._fd, 0)
            self._close()
            raise BadBody(f"the body of message {format_id(self._identity)} does not have the digest promised for it")
        os.fsync(self._fd)
        self._part.replace(self._final)
        sync_directory(self._final.parent)
        self._close()
        self._offset = self._reference.size

    def _digest(self) -> bytes:
        digest, position = hashlib.sha256(), 0
        while piece := os.pread(self._fd, PIECE, position):
            digest.update(piece)
            position += len(piece)
        return digest.digest()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._ahead.clear()
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Let go of the file; what is there stays. Safe twice."""
        with self._lock:
            self._close()


class Arrivals:
    """All bodies on their way into one node. Safe from many threads."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, Arriving] = OrderedDict()

    def of(self, peer: str, identity: MessageId, reference: Reference) -> Arriving:
        """The body of a message that ``peer`` sends or will send. Raises QueueFull if there is no room."""
        path = self._bodies.place(peer, identity, reference)
        with self._lock:
            found = self._open.get(path)
            if found is not None:
                self._open.move_to_end(path)
                return found
        if not path.exists():
            with contextlib.suppress(FileNotFoundError):
                self._bodies.check_room(reference.size - path.with_name(path.name + ".part").stat().st_size)
                return self._enter(path, identity, reference)
            self._bodies.check_room(reference.size)
        return self._enter(path, identity, reference)

    def _enter(self, path: Path, identity: MessageId, reference: Reference) -> Arriving:
        with self._lock:
            found = self._open.setdefault(path, Arriving(path, identity, reference))
            old = self._open.popitem(last=False)[1] if len(self._open) > OPEN else None
        if old is not None:
            old.close()
        return found

    def close(self) -> None:
        """Let go of all files; safe twice."""
        with self._lock:
            files, self._open = list(self._open.values()), OrderedDict()
        for file in files:
            file.close()
