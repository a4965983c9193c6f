"""A staging log: messages of a channel with ``durability: interval`` on their way into the outbox.

Owns the bytes of the file (docs/formats/staging-log.md): a ring that one process writes through a mapping that it
shares with the kernel, and that whoever finds the process dead reads. To write a record is to copy it: no system call,
and the death of the process at the next moment changes nothing. Must not know when records are taken in, nor what a
message is.
"""

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from dropr_core.errors import Held
from dropr_core.system.locks import FileLock
from dropr_core.system.ownership import make_private_directory, open_private

MAGIC, VERSION = b"dropr-st", 1
HEAD = struct.Struct("<8sHHII")
"""magic, version, 0, size of the file, CRC-32 of what stands before it."""
TAKEN_AT = 512
DATA_AT = 4096
SIZE = 4 << 20
RECORD = struct.Struct("<IIQ")
"""CRC-32 of what follows, length of the body, position of the record."""
_POSITION = struct.Struct("<Q")
_FILLER = 0xFFFFFFFF
"""The length of a record that only says: the next one stands at the beginning of the ring."""
MAX_RECORD = 1 << 20
"""Bytes of a body at most; what is longer goes straight into the outbox."""


class StagingLog:
    """One process's log. Not safe for threads: its owner has a lock."""

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        """Make a file of full size with a name of its own, and lock it. Raises OSError, Held; nothing is left then.

        It is allocated before it is mapped: a page that a full disk could not give would end the process.
        """
        make_private_directory(directory)
        self._lock = _locked_new_file(directory)
        self.path = self._lock.path
        self.capacity = size - DATA_AT
        self.written = self.taken = 0
        try:
            # Not the descriptor that holds the lock: a mapping keeps what it was made of open, also in a forked child.
            fd = open_private(self.path, os.O_RDWR)
            try:
                os.posix_fallocate(fd, 0, size)
                self._file = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self._lock.release()
            raise
        # What the lock wrote for people makes room for the head.
        self._file[0:DATA_AT] = (_head(size)).ljust(DATA_AT, b"\0")

    @property
    def name(self) -> str:
        """By which the outbox notes how far it is taken in; no other log ever has it."""
        return self.path.name

    def append(self, body: bytes) -> bool:
        """Write a record; False if there is no room until more is taken."""
        need = RECORD.size + len(body)
        at = self.written % self.capacity
        left = self.capacity - at
        skip = left if left < need else 0
        if self.written + skip + need - self.taken > self.capacity:
            return False
        if skip:
            if left >= RECORD.size:
                self._put(at, _FILLER, b"")
            self.written += skip
            at = 0
        self._put(at, len(body), body)
        self.written += need
        return True

    def _put(self, at: int, length: int, body: bytes) -> None:
        start = DATA_AT + at
        record = struct.pack("<IQ", length, self.written) + body
        self._file[start : start + 4 + len(record)] = zlib.crc32(record).to_bytes(4, "little") + record

    def take(self, upto: int) -> None:
        """What stands before a position is in the outbox: its room is free."""
        self.taken = upto
        self._file[TAKEN_AT : TAKEN_AT + 8] = _POSITION.pack(upto)

    def flush(self) -> None:
        """Bring it to the disk, for when the outbox does not take it in. Raises OSError."""
        self._file.flush()

    def remove(self) -> None:
        """Everything is taken in: the file goes, for good when this returns. Raises OSError."""
        remove_for_good(self.path)
        self.close()

    def close(self) -> None:
        """Let go of it; a file that is still there is for others to take in. Safe twice."""
        self._file.close()
        self._lock.release()


def _locked_new_file(directory: Path) -> FileLock:
    for _ in range(100):
        lock = FileLock(directory / f"{os.getpid()}-{os.urandom(8).hex()}")
        try:
            lock.acquire("staging")
        except Held:  # somebody looks for logs of the dead, and saw the file before we had locked it
            continue
        if lock.path.exists():
            return lock
        lock.release()
    raise Held(f"{directory}: no staging log could be locked in 100 tries")


def _head(size: int) -> bytes:
    head = HEAD.pack(MAGIC, VERSION, 0, size, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little")


def remove_for_good(path: Path) -> None:
    """Remove a log so that no power cut brings it back. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def taken_of(data: bytes) -> int | None:
    """Up to where a log says that it is taken in; None if this is no log that we can read (a torn one, a newer one)."""
    if len(data) < DATA_AT:
        return None
    magic, version, _, size, check = HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or size != len(data) or zlib.crc32(data[: HEAD.size - 4]) != check:
        return None
    (taken,) = _POSITION.unpack_from(data, TAKEN_AT)
    return int(taken)


def is_of_other_version(data: bytes) -> bool:
    """Whether a log that cannot be read is whole, and was written by another version."""
    if len(data) < DATA_AT:
        return False
    magic, version, *_, check = HEAD.unpack_from(data)
    return bool(magic == MAGIC and version != VERSION and zlib.crc32(data[: HEAD.size - 4]) == check)


def records(data: bytes, position: int) -> Iterator[tuple[bytes, int]]:
    """The records of a log's bytes from a position on, each with the position after it.

    Ends before the first one that is not whole: it was being written, or a power cut took it.
    """
    capacity = len(data) - DATA_AT
    last = position + capacity
    while position < last:
        at = position % capacity
        left = capacity - at
        if left < RECORD.size:
            position += left
            continue
        start = DATA_AT + at
        check, length, where = RECORD.unpack_from(data, start)
        body_at = start + RECORD.size
        stop = body_at if length == _FILLER else body_at + length
        if where != position or stop - DATA_AT > capacity or zlib.crc32(data[start + 4 : stop]) != check:
            return
        if length == _FILLER:
            position += left
            continue
        position += RECORD.size + length
        yield data[body_at:stop], position
