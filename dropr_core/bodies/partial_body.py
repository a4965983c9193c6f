"""Bodies on their way in: pieces in any order, one file, resumed after any break.

Owns the files ``….part`` of `store.py`. Must not know frames, or who may send what.

Each piece comes with the digests of its leaves, and from them follows that of the whole (chunk_digest.py), which
must be the one that the sender promised: else the body is begun anew. What stood in a part file before survived
the death of a process, but a power cut may have left anything in it: its leaves are read again at the end, and written,
so that the sync tells of them, too. Where many
bodies come at once files are closed and opened again; what is known of one holds as long as nobody touched it.
"""

import contextlib
import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakValueDictionary

from dropr_core.bodies.files import PIECE
from dropr_core.bodies.write_behind import EarlySync, write_all
from dropr_core.contracts.bodies import Arrival, Arrivals
from dropr_core.errors import BadBody, QueueFull, StoreBusy, StoreError
from dropr_core.model.chunk_digest import LEAF, SIZE, LeafHash, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.limits import PIECES_AHEAD
from dropr_core.model.names import MessageId, format_id
from dropr_core.system.files import sync_directory, write_at
from dropr_core.system.os_errors import store_error
from dropr_core.system.ownership import open_private

OPEN = 128
"""Part files kept open at once; more only while that many are being written."""

KNOWN = 256
"""Bodies of which the digests are kept in memory, 128 KiB for each GiB."""


class PartialBody(Arrival):
    """A file on its way in."""

    def __init__(
        self, final: Path, identity: MessageId, reference: Reference, disk: ThreadPoolExecutor,
        opened: "Callable[[PartialBody], None]",
    ) -> None:  # fmt: skip
        """``disk``: flushes what was written while more is being written. ``opened``: told when a file was opened."""
        self._tell_opened = opened
        self._final, self._part = final, final.with_name(final.name + ".part")
        self._identity, self._reference = identity, reference
        self._lock = threading.Lock()
        self._ahead: dict[int, tuple[bytes | memoryview, bytes]] = {}
        self._fd = -1
        self._disk = disk
        self._early: EarlySync | None = None
        self._offset = 0
        self._leaves, self._resumed_at = bytearray(), 0
        """Digests of what was written since the file was opened, at ``_resumed_at``."""
        self._left: _Stamp | None = None
        """The file as it was when it was closed to let others open theirs; then it is known what stands in it."""

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

    def write(self, offset: int, data: bytes | memoryview, leaves: bytes | None = None) -> int:
        """Take a piece; how many bytes are here now. The last one makes the body complete and durable.

        ``offset``: of a leaf. ``leaves``: the digests of the piece's leaves, if they are known. Raises BadBody if
        all of it has another digest (it begins anew then), StoreError.
        """
        if leaves is None:
            data = memoryview(data)[: max(0, self._reference.size - offset)]
            leaves = leaves_of(data)
        with self._lock:
            if self._done():
                return self._reference.size
            try:
                have = self._opened()
                if offset > have:
                    if sum(len(piece) for piece, _ in self._ahead.values()) + len(data) <= PIECES_AHEAD:
                        self._ahead[offset] = data, leaves
                    return have
                self._append(data[have - offset :], leaves[(have - offset) // LEAF * SIZE :])
                while (piece := self._ahead.pop(self._offset, None)) is not None:
                    self._append(*piece)
                if self._offset >= self._reference.size:
                    self._complete()
            except OSError as error:
                raise self._failed(error) from error
            return self._offset

    def _failed(self, error: OSError) -> StoreError:
        self._close()
        failed = store_error(error, self._part)
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
        fd = open_private(self._part, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StoreBusy(f"{self._part} is being written by another process") from None
        left, self._left = self._left, None
        if left is not None and left == _stamp(fd):
            os.lseek(fd, self._offset, os.SEEK_SET)
            self._fd, self._early = fd, EarlySync(fd, self._disk)
            self._tell_opened(self)
            return self._offset
        offset, size = os.fstat(fd).st_size, self._reference.size
        if offset != size:
            offset = offset // LEAF * LEAF if offset < size else 0
            os.ftruncate(fd, offset)
        os.lseek(fd, offset, os.SEEK_SET)
        self._fd, self._offset, self._resumed_at = fd, offset, offset
        self._early = EarlySync(fd, self._disk)
        self._leaves = bytearray()
        self._tell_opened(self)
        return offset

    def _append(self, data: bytes | memoryview, leaves: bytes) -> None:
        write_all(self._fd, data)
        self._offset += len(data)
        self._leaves += leaves
        if self._early is not None:
            self._early.wrote(len(data))

    def _flushed(self) -> None:
        """Wait until what the disk was given last is there. Raises OSError."""
        if self._early is not None:
            self._early.wait()

    def _complete(self) -> None:
        if digest_of(self._old_leaves() + self._leaves) != self._reference.digest:
            os.ftruncate(self._fd, 0)
            self._close()
            raise BadBody(f"the body of message {format_id(self._identity)} does not have the digest promised for it")
        self._flushed()
        os.fsync(self._fd)
        self._part.replace(self._final)
        sync_directory(self._final.parent)
        self._close()
        self._offset = self._reference.size

    def _old_leaves(self) -> bytes:
        digest, position = LeafHash(), 0
        while piece := os.pread(self._fd, min(PIECE, self._resumed_at - position), position):
            digest.update(piece)
            # Who wrote it may have been killed within a sync that failed, of which the kernel tells nobody else.
            write_at(self._fd, piece, position)
            position += len(piece)
        return digest.leaves()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # the file is given up, or was flushed as a whole
            self._flushed()
        fd, self._fd, self._early, self._left = self._fd, -1, None, None
        self._ahead.clear()
        if fd >= 0:
            os.close(fd)

    @property
    def is_open(self) -> bool:
        """Whether its file is open."""
        return self._fd >= 0

    def make_way(self) -> bool:
        """Close the file unless somebody is using it, so that another one can be opened. Whether it is closed."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._fd >= 0:
                try:
                    # Flushed first: an error of the disk that nobody was told of is not remembered for who opens it.
                    self._flushed()
                    if self._early is not None and self._early.behind:
                        os.fdatasync(self._fd)
                    left = _stamp(self._fd)
                except OSError as error:
                    self._failed(error)
                else:
                    self._close()
                    self._left = left
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the file; what is there stays. Safe twice."""
        with self._lock:
            self._close()


_Stamp = tuple[int, int, int, int, int]


def _stamp(fd: int) -> _Stamp:
    """What changes with any change of a file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_Key = tuple[str, MessageId, Reference]


class PartialBodies(Arrivals):
    """All files on their way into one process."""

    def __init__(self, place: Callable[[str, MessageId, Reference], Path], check_room: Callable[[int], None]) -> None:
        """``place``: where a body belongs. ``check_room``: raises QueueFull if there is no room for so many bytes."""
        self._place, self._check_room = place, check_room
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="dropr-body-disk")
        self._lock = threading.Lock()
        self._bodies: WeakValueDictionary[_Key, PartialBody] = WeakValueDictionary()
        """All that anybody has in hand: there is never a second one for the same file, which would find it locked."""
        self._known: OrderedDict[_Key, PartialBody] = OrderedDict()
        """Those that came last, whether their files are open or not."""
        self._open: OrderedDict[PartialBody, None] = OrderedDict()
        """Those whose files were opened and perhaps closed since."""

    def of(self, peer: str, identity: MessageId, reference: Reference) -> PartialBody:
        """The body of a message that ``peer`` sends or will send. Raises QueueFull if there is no room."""
        key = (peer, identity, reference)
        with self._lock:
            found = self._bodies.get(key)
            if found is not None:
                return self._used(key, found)
        path = self._place(peer, identity, reference)
        if not path.exists():
            here = 0
            with contextlib.suppress(FileNotFoundError):
                here = path.with_name(path.name + ".part").stat().st_size
            self._check_room(reference.size - here)
        with self._lock:
            found = self._bodies.get(key)
            if found is None:
                found = self._bodies[key] = PartialBody(path, identity, reference, self._disk, self._opened)
            return self._used(key, found)

    def _used(self, key: _Key, body: PartialBody) -> PartialBody:
        self._known[key] = body
        self._known.move_to_end(key)
        if body in self._open:
            self._open.move_to_end(body)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return body

    def _opened(self, body: PartialBody) -> None:
        """A file was opened, by whoever holds its lock: close the one that was used longest ago, if nobody uses it. No
        lock is waited for, for its holder may wait for this one.
        """
        with self._lock:
            self._open[body] = None
            self._open.move_to_end(body)
            old = list(self._open)[: max(0, len(self._open) - OPEN)]
        for other in old:
            if other is not body and other.make_way():
                with self._lock:
                    if not other.is_open:
                        self._open.pop(other, None)

    def close(self) -> None:
        """Let go of all files; safe twice."""
        with self._lock:
            files, self._open = list(self._open), OrderedDict()
            self._known.clear()
        for file in files:
            file.close()
        self._disk.shutdown()
