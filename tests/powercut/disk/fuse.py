"""The Linux kernel's FUSE protocol, as much of it as this file system needs.

Owns the layouts of the kernel's public header ``linux/fuse.h``, protocol 7.31, which newer kernels accept, and the
mount itself. Speaks to ``/dev/fuse`` directly, so that neither libfuse nor a binding has to be installed; mounting
needs root. Must not know what a request means.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DEVICE = Path("/dev/fuse")

# Requests of the kernel.
LOOKUP, FORGET, GETATTR, SETATTR = 1, 2, 3, 4
MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK = 8, 9, 10, 11, 12, 13
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR = 26, 27, 28, 29, 30
CREATE, INTERRUPT, DESTROY, BATCH_FORGET, FALLOCATE, RENAME2 = 35, 36, 38, 42, 43, 45

UNANSWERED = (FORGET, BATCH_FORGET, INTERRUPT)
"""The kernel waits for no reply to these."""

# Which fields a SETATTR request carries.
SET_MODE, SET_UID, SET_GID, SET_SIZE = 1, 2, 4, 8
SET_ATIME, SET_MTIME, SET_ATIME_NOW, SET_MTIME_NOW = 16, 32, 128, 256

FALLOCATE_KEEP_SIZE = 1

MAX_WRITE = 128 * 1024
"""Bytes in one request of WRITE at most."""

_KEEP_CACHE = 2
_BIG_WRITES = 1 << 5
_DETACH = 2
_FOREVER = 1 << 20
"""Seconds that the kernel may trust what it was told: nobody else changes this file system."""

_HEADER = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")

_libc = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    """One request of the kernel: what it wants, of which inode, for whom, and the rest."""

    opcode: int
    unique: int
    inode: int
    uid: int
    gid: int
    body: memoryview

    def numbers(self, layout: str) -> tuple[int, ...]:
        """The integers at the start of the body (`layout` as for `struct`)."""
        return struct.unpack_from("<" + layout, self.body)

    def names(self, skip: int = 0) -> list[bytes]:
        """The names that follow ``skip`` bytes of the body."""
        return bytes(self.body[skip:]).split(b"\0")[:-1]


class Attributes(NamedTuple):
    """What the kernel wants to know of an inode."""

    inode: int
    size: int
    mode: int
    links: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int


def mount(path: Path) -> int:
    """Mount a file system; returns its handle of the device. Raises OSError if that is not allowed here."""
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    if _libc.mount(b"powercut", os.fsencode(path), b"fuse.powercut", 0, options.encode()):
        code = ctypes.get_errno()
        os.close(fd)
        raise OSError(code, f"cannot mount at {path}: {os.strerror(code)}")
    return fd


def unmount(path: Path) -> None:
    """Take the mount away, though programs may still hold files in it. Nothing if there is none."""
    if _libc.umount2(os.fsencode(path), _DETACH):
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOENT):
            raise OSError(code, f"cannot unmount {path}: {os.strerror(code)}")


class Connection:
    """Reads the kernel's requests from a handle of the device, and writes replies."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(MAX_WRITE + 8192)
        self._view = memoryview(self._buffer)

    def receive(self) -> Request | None:
        """The next request, or None if there is none now; EOFError once unmounted. Valid until the next call."""
        try:
            count = os.readv(self.fd, [self._buffer])
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise EOFError from None
            if error.errno in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                return None
            raise
        _, opcode, unique, inode, uid, gid, _, _, _ = _HEADER.unpack_from(self._buffer)
        return Request(opcode, unique, inode, uid, gid, self._view[_HEADER.size : count])

    def reply(self, request: Request, body: bytes = b"", code: int = 0) -> None:
        """Answer a request, or refuse it with an errno."""
        try:
            os.writev(self.fd, [_REPLY.pack(_REPLY.size + len(body), -code, request.unique), body])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # interrupted, unmounted
                raise


def init_reply() -> bytes:
    """The answer to INIT."""
    return struct.pack("<4I2H2I2H8I", 7, 31, MAX_WRITE, _BIG_WRITES, 0, 0, MAX_WRITE, 1, 0, 0, *[0] * 8)


def _packed(about: Attributes) -> bytes:
    accessed, accessed_ns = divmod(about.atime_ns, 10**9)
    changed, changed_ns = divmod(about.mtime_ns, 10**9)
    return _ATTRIBUTES.pack(
        *(about.inode, about.size, (about.size + 511) // 512),
        *(accessed % 2**64, changed % 2**64, changed % 2**64, accessed_ns, changed_ns, changed_ns),
        *(about.mode, about.links, about.uid, about.gid, 0, 4096, 0),
    )


def attributes_reply(about: Attributes) -> bytes:
    """The answer to GETATTR and SETATTR."""
    return struct.pack("<QII", _FOREVER, 0, 0) + _packed(about)


def entry_reply(about: Attributes) -> bytes:
    """The answer to LOOKUP and to all that makes a name."""
    return struct.pack("<4Q2I", about.inode, 0, _FOREVER, _FOREVER, 0, 0) + _packed(about)


def open_reply(handle: int = 0) -> bytes:
    """The answer to OPEN and OPENDIR."""
    return struct.pack("<QII", handle, _KEEP_CACHE if not handle else 0, 0)


def write_reply(size: int) -> bytes:
    """The answer to WRITE."""
    return struct.pack("<II", size, 0)


def statfs_reply(capacity: int, used: int) -> bytes:
    """The answer to STATFS, in bytes."""
    blocks, free = capacity // 4096, max(0, capacity - used) // 4096
    return struct.pack("<5Q4I6I", blocks, free, free, 1 << 20, 1 << 20, 4096, 255, 4096, 0, *[0] * 6)


def readdir_reply(entries: Iterable[tuple[bytes, int, int]], offset: int, size: int) -> bytes:
    """As many of the (name, inode number, mode) entries from ``offset`` on as fit."""
    out = bytearray()
    for place, (name, inode, mode) in enumerate(entries):
        if place < offset:
            continue
        record = struct.pack("<QQII", inode, place + 1, len(name), mode >> 12) + name
        record += bytes(-len(record) % 8)
        if len(out) + len(record) > size:
            break
        out += record
    return bytes(out)
