"""A file system in memory that knows what is durable and what is not.

Owns the operations on names and files, and the rules of durability, which are those of POSIX at their strictest:

* fsync of a file makes that file's bytes and length durable, and nothing else: not its name;
* fsync of a directory makes that directory's names durable, and nothing else: not the directory's own name;
* a rename is atomic, and makes no bytes durable.

Methods take inode numbers and raise OSError with the errno of a real file system. Must know nothing of FUSE, of
power cuts or of faults. Inodes are never forgotten: runs are short. Not thread-safe.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable

from powercut.disk.inodes import DataChange, Directory, File, Inode, NameChange

ROOT = 1
"""The inode number of the root, as FUSE has it."""

SECTOR = 512
"""Bytes that are written whole or not at all."""

CAPACITY = 1 << 30
"""Bytes that fit."""


def failure(code: int) -> OSError:
    """The error of an operation."""
    return OSError(code, os.strerror(code))


class FileSystem:
    """Files and directories, running and durable. ``sector`` and ``capacity`` are bytes."""

    def __init__(self, sector: int = SECTOR, capacity: int = CAPACITY) -> None:
        self.sector = sector
        self.capacity = capacity
        self.used = 0
        """Bytes in files that have a name."""
        self.seq = 0
        """Counts changes of names and bytes."""
        self.pending: list[NameChange] = []
        """Changes of names that no fsync has covered, in order."""
        self.inodes: dict[int, Inode] = {ROOT: Directory(ROOT, stat.S_IFDIR | 0o755, path="/")}

    # Looking up

    def inode(self, number: int) -> Inode:
        """The inode with a number; ESTALE if there is none."""
        if number not in self.inodes:
            raise failure(errno.ESTALE)
        return self.inodes[number]

    def directory(self, number: int) -> Directory:
        """The directory with a number; ENOTDIR if it is none."""
        inode = self.inode(number)
        if not isinstance(inode, Directory):
            raise failure(errno.ENOTDIR)
        return inode

    def file(self, number: int) -> File:
        """The file with a number; EISDIR if it is a directory."""
        inode = self.inode(number)
        if not isinstance(inode, File):
            raise failure(errno.EISDIR)
        return inode

    def lookup(self, directory: int, name: bytes) -> Inode:
        """What stands under a name; ENOENT if nothing does."""
        entries = self.directory(directory).entries
        if name not in entries:
            raise failure(errno.ENOENT)
        return self.inodes[entries[name]]

    # Changing names

    def _rename(self, *changes: tuple[int, bytes, int | None]) -> None:
        """Change names as programs see them, and note the change as pending."""
        self.seq += 1
        self.pending.append(NameChange(self.seq, changes))
        for number, name, target in changes:
            directory = self.directory(number)
            directory.mtime_ns = time.time_ns()
            if target is None:
                del directory.entries[name]
            else:
                directory.entries[name] = target
                self.inodes[target].path = below(directory.path, name)

    def _free(self, directory: int, name: bytes) -> None:
        if name in self.directory(directory).entries:
            raise failure(errno.EEXIST)

    def create(self, directory: int, name: bytes, mode: int, uid: int = 0, gid: int = 0) -> File:
        """Make an empty file; or a FIFO, whose bytes are the kernel's business, if the mode says so."""
        self._free(directory, name)
        kind = stat.S_IFIFO if stat.S_ISFIFO(mode) else stat.S_IFREG
        file = File(len(self.inodes) + ROOT, kind | stat.S_IMODE(mode), uid, gid)
        self.inodes[file.number] = file
        self._rename((directory, name, file.number))
        return file

    def mkdir(self, directory: int, name: bytes, mode: int, uid: int = 0, gid: int = 0) -> Directory:
        """Make an empty directory."""
        self._free(directory, name)
        number = len(self.inodes) + ROOT
        made = Directory(number, stat.S_IFDIR | stat.S_IMODE(mode), uid, gid, parent=directory)
        self.inodes[number] = made
        self._rename((directory, name, number))
        return made

    def link(self, number: int, directory: int, name: bytes) -> Inode:
        """Give a file one more name."""
        self._free(directory, name)
        file = self.file(number)
        file.links += 1
        self._rename((directory, name, number))
        return file

    def unlink(self, directory: int, name: bytes) -> None:
        """Take a file's name away."""
        inode = self.lookup(directory, name)
        if not isinstance(inode, File):
            raise failure(errno.EISDIR)
        self._rename((directory, name, None))
        self._one_name_less(inode)

    def rmdir(self, directory: int, name: bytes) -> None:
        """Take an empty directory away."""
        inode = self.lookup(directory, name)
        if not isinstance(inode, Directory):
            raise failure(errno.ENOTDIR)
        if inode.entries:
            raise failure(errno.ENOTEMPTY)
        self._rename((directory, name, None))
        self._one_name_less(inode)

    def rename(self, directory: int, name: bytes, new_directory: int, new_name: bytes) -> None:
        """Give something another name, in place of what has that name now."""
        inode = self.lookup(directory, name)
        present = self.directory(new_directory).entries.get(new_name)
        replaced = None if present is None else self.inodes[present]
        if replaced is inode:
            return  # two names of one file: POSIX does nothing
        if isinstance(replaced, Directory):
            if not isinstance(inode, Directory):
                raise failure(errno.EISDIR)
            if replaced.entries:
                raise failure(errno.ENOTEMPTY)
        elif replaced is not None and isinstance(inode, Directory):
            raise failure(errno.ENOTDIR)
        self._rename((directory, name, None), (new_directory, new_name, inode.number))
        if isinstance(inode, Directory):
            inode.parent = new_directory
        if replaced is not None:
            self._one_name_less(replaced)

    def _one_name_less(self, inode: Inode) -> None:
        inode.links -= 1
        if inode.links == 0 and isinstance(inode, File):
            self.used -= len(inode.data)

    # Changing files

    def read(self, number: int, offset: int, size: int) -> bytes:
        """What programs see of a file's bytes."""
        return bytes(self.file(number).data[offset : offset + size])

    def write(self, number: int, offset: int, data: bytes) -> int:
        """Write; returns how many bytes. ENOSPC if they do not fit: then nothing is written."""
        file = self.file(number)
        before = len(file.data)
        self._change(file, DataChange(0, offset, data, before, max(before, offset + len(data))))
        return len(data)

    def truncate(self, number: int, size: int) -> None:
        """Shorten a file, or lengthen it with zeros (ENOSPC if they do not fit)."""
        file = self.file(number)
        if size != len(file.data):
            self._change(file, DataChange(0, 0, None, len(file.data), size))

    def _change(self, file: File, change: DataChange) -> None:
        growth = change.size_after - change.size_before
        if self.used + growth > self.capacity:
            raise failure(errno.ENOSPC)
        if file.links:
            self.used += growth
        self.seq += 1
        change.seq = self.seq
        change.apply(file.data)
        file.mtime_ns = time.time_ns()
        file.pending.append(change)

    # Making durable

    def fsync(self, number: int) -> None:
        """Make a file's bytes and length durable."""
        self.file(number).settle()

    def fsync_lost(self, number: int) -> None:
        """An fsync that failed as Linux lets it fail.

        The dirty pages are marked clean although they were not written: programs go on seeing them, the next fsync
        reports success, and they never reach the medium.
        """
        self.file(number).pending.clear()

    def fsync_directory(self, number: int) -> None:
        """Make a directory's names durable."""
        self.directory(number)
        self._commit([change for change in self.pending if change.touches(number)])

    def settle(self) -> None:
        """Make everything durable, as a clean unmount does."""
        for inode in self.inodes.values():
            if isinstance(inode, File):
                inode.settle()
        self._commit(self.pending)

    def _commit(self, changes: Iterable[NameChange]) -> None:
        done = self.with_causes(changes)
        for change in done:
            for directory, name, target in change.changes:
                put(self.directory(directory).durable, name, target)
        committed = {change.seq for change in done}
        self.pending = [change for change in self.pending if change.seq not in committed]

    def with_causes(self, changes: Iterable[NameChange]) -> list[NameChange]:
        """Pending changes of names, and the earlier ones to the same names, without which they could not be."""
        wanted = {change.seq for change in changes}
        names: set[tuple[int, bytes]] = set()
        chosen = []
        for change in reversed(self.pending):
            if change.seq in wanted or names & change.names():
                names |= change.names()
                chosen.append(change)
        return chosen[::-1]


def below(path: str, name: bytes) -> str:
    """The path of a name in a directory."""
    return f"{path.rstrip('/')}/{os.fsdecode(name)}"


def put(entries: dict[bytes, int], name: bytes, target: int | None) -> None:
    """Set a name in the picture of a directory, or take it away."""
    if target is None:
        entries.pop(name, None)
    else:
        entries[name] = target
