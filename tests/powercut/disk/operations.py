"""The answer to each request of the kernel.

Owns the way from a request to an operation of `FileSystem` and back to a reply; tells `Controls` of every operation
before it is done. Must not know how requests are read and replies are sent.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable

from powercut.disk import fuse
from powercut.disk.controls import Controls
from powercut.disk.filesystem import FileSystem, below, failure
from powercut.disk.inodes import Directory, File, Inode


class Operations:
    """What the kernel may ask of one file system."""

    def __init__(self, disk: FileSystem, controls: Controls) -> None:
        self._disk = disk
        self._controls = controls
        self._listings: dict[int, list[tuple[bytes, int, int]]] = {}
        """Handle of an open directory to what it listed when it was read from the start."""
        self._handles = 0
        self._answers: dict[int, Callable[[fuse.Request], bytes]] = {
            fuse.INIT: lambda _: fuse.init_reply(),
            fuse.LOOKUP: self._lookup,
            fuse.GETATTR: self._getattr,
            fuse.SETATTR: self._setattr,
            fuse.MKNOD: self._mknod,
            fuse.CREATE: self._create,
            fuse.MKDIR: self._mkdir,
            fuse.LINK: self._link,
            fuse.UNLINK: self._unlink,
            fuse.RMDIR: self._rmdir,
            fuse.RENAME: self._rename,
            fuse.RENAME2: self._rename2,
            fuse.OPEN: self._open,
            fuse.READ: self._read,
            fuse.WRITE: self._write,
            fuse.FALLOCATE: self._fallocate,
            fuse.FSYNC: self._fsync,
            fuse.RELEASE: lambda _: b"",
            fuse.OPENDIR: self._opendir,
            fuse.READDIR: self._readdir,
            fuse.RELEASEDIR: self._releasedir,
            fuse.FSYNCDIR: self._fsyncdir,
            fuse.STATFS: lambda _: fuse.statfs_reply(disk.capacity, disk.used),
            fuse.DESTROY: lambda _: b"",
        }

    def answer(self, request: fuse.Request) -> bytes:
        """The body of the reply; OSError if the request is refused: EIO for all of them once the power is gone."""
        if self._controls.dead and request.opcode != fuse.INIT:
            raise failure(errno.EIO)
        if request.opcode not in self._answers:
            raise failure(errno.ENOSYS)
        return self._answers[request.opcode](request)

    def _attributes(self, inode: Inode) -> fuse.Attributes:
        size = len(inode.data) if isinstance(inode, File) else 4096
        times = inode.atime_ns, inode.mtime_ns
        return fuse.Attributes(inode.number, size, inode.mode, inode.links, inode.uid, inode.gid, *times)

    def _entry(self, inode: Inode) -> bytes:
        return fuse.entry_reply(self._attributes(inode))

    def _path(self, directory: int, name: bytes) -> str:
        return below(self._disk.inode(directory).path, name)

    # Names

    def _lookup(self, request: fuse.Request) -> bytes:
        return self._entry(self._disk.lookup(request.inode, request.names()[0]))

    def _mknod(self, request: fuse.Request) -> bytes:
        mode, _, umask, _ = request.numbers("4I")
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise failure(errno.EPERM)
        return self._made(request, request.names(16)[0], mode & ~umask)

    def _create(self, request: fuse.Request) -> bytes:
        _, mode, umask, _ = request.numbers("4I")
        return self._made(request, request.names(16)[0], mode & ~umask) + fuse.open_reply()

    def _made(self, request: fuse.Request, name: bytes, mode: int) -> bytes:
        self._controls.before("create", self._path(request.inode, name))
        return self._entry(self._disk.create(request.inode, name, mode, request.uid, request.gid))

    def _mkdir(self, request: fuse.Request) -> bytes:
        mode, umask = request.numbers("2I")
        name = request.names(8)[0]
        self._controls.before("mkdir", self._path(request.inode, name))
        return self._entry(self._disk.mkdir(request.inode, name, mode & ~umask, request.uid, request.gid))

    def _link(self, request: fuse.Request) -> bytes:
        (number,) = request.numbers("Q")
        name = request.names(8)[0]
        self._controls.before("link", self._path(request.inode, name))
        return self._entry(self._disk.link(number, request.inode, name))

    def _unlink(self, request: fuse.Request) -> bytes:
        name = request.names()[0]
        self._controls.before("unlink", self._path(request.inode, name))
        self._disk.unlink(request.inode, name)
        return b""

    def _rmdir(self, request: fuse.Request) -> bytes:
        name = request.names()[0]
        self._controls.before("rmdir", self._path(request.inode, name))
        self._disk.rmdir(request.inode, name)
        return b""

    def _rename(self, request: fuse.Request) -> bytes:
        return self._renamed(request.inode, request.numbers("Q")[0], *request.names(8))

    def _rename2(self, request: fuse.Request) -> bytes:
        new_directory, flags, _ = request.numbers("QII")
        if flags:
            raise failure(errno.EINVAL)
        return self._renamed(request.inode, new_directory, *request.names(16))

    def _renamed(self, directory: int, new_directory: int, name: bytes, new_name: bytes) -> bytes:
        self._controls.before("rename", self._path(directory, name))
        self._disk.rename(directory, name, new_directory, new_name)
        return b""

    # Directories

    def _opendir(self, request: fuse.Request) -> bytes:
        self._disk.directory(request.inode)
        self._handles += 1
        return fuse.open_reply(self._handles)

    def _readdir(self, request: fuse.Request) -> bytes:
        handle, offset, size = request.numbers("QQI")
        if offset == 0:  # a fresh look, kept for the rest of this listing
            self._listings[handle] = self._listed(self._disk.directory(request.inode))
        return fuse.readdir_reply(self._listings[handle], offset, size)

    def _listed(self, directory: Directory) -> list[tuple[bytes, int, int]]:
        entries = {b".": directory.number, b"..": directory.parent} | directory.entries
        return [(name, number, self._disk.inodes[number].mode) for name, number in entries.items()]

    def _releasedir(self, request: fuse.Request) -> bytes:
        self._listings.pop(request.numbers("Q")[0], None)
        return b""

    def _fsyncdir(self, request: fuse.Request) -> bytes:
        if self._controls.before("fsyncdir", self._disk.directory(request.inode).path) != "lie":
            self._disk.fsync_directory(request.inode)
        return b""

    # Files

    def _getattr(self, request: fuse.Request) -> bytes:
        return fuse.attributes_reply(self._attributes(self._disk.inode(request.inode)))

    def _setattr(self, request: fuse.Request) -> bytes:
        fields = request.numbers("IIQQQqqQ8I")
        asked, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = fields
        inode = self._disk.inode(request.inode)
        if asked & fuse.SET_SIZE:
            self._resize(self._disk.file(request.inode), size)
        if asked & fuse.SET_MODE:
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        if asked & fuse.SET_UID:
            inode.uid = uid
        if asked & fuse.SET_GID:
            inode.gid = gid
        if asked & fuse.SET_ATIME:
            inode.atime_ns = time.time_ns() if asked & fuse.SET_ATIME_NOW else atime * 10**9 + atime_ns
        if asked & fuse.SET_MTIME:
            inode.mtime_ns = time.time_ns() if asked & fuse.SET_MTIME_NOW else mtime * 10**9 + mtime_ns
        return fuse.attributes_reply(self._attributes(inode))

    def _resize(self, file: File, size: int) -> None:
        self._controls.before("truncate", file.path)
        self._disk.truncate(file.number, size)

    def _open(self, request: fuse.Request) -> bytes:
        path = self._disk.file(request.inode).path
        self._controls.may_fail("open", path)
        if request.numbers("I")[0] & os.O_ACCMODE != os.O_RDONLY:
            self._controls.may_fail("open-write", path)
        return fuse.open_reply()

    def _read(self, request: fuse.Request) -> bytes:
        _, offset, size = request.numbers("QQI")
        self._controls.may_fail("read", self._disk.file(request.inode).path)
        return self._disk.read(request.inode, offset, size)

    def _write(self, request: fuse.Request) -> bytes:
        _, offset, size = request.numbers("QQI")
        data = bytes(request.body[40 : 40 + size])
        if self._controls.before("write", self._disk.file(request.inode).path) == "short":
            data = data[: max(1, size // 2)]
        return fuse.write_reply(self._disk.write(request.inode, offset, data))

    def _fallocate(self, request: fuse.Request) -> bytes:
        _, offset, length, mode = request.numbers("QQQI")
        if mode & ~fuse.FALLOCATE_KEEP_SIZE:
            raise failure(errno.EOPNOTSUPP)
        file = self._disk.file(request.inode)
        if not mode and offset + length > len(file.data):
            self._resize(file, offset + length)
        return b""

    def _fsync(self, request: fuse.Request) -> bytes:
        action = self._controls.before("fsync", self._disk.file(request.inode).path)
        if action == "lost":
            self._disk.fsync_lost(request.inode)
            raise failure(errno.EIO)
        if action != "lie":
            self._disk.fsync(request.inode)
        return b""
