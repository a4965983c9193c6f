"""Files and directories as a program sees them, as the medium holds them, and the changes between the two.

Owns the two pictures of each inode and the records of what is pending. Knows nothing of paths, policies or FUSE.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class DataChange:
    """A change to one file's bytes or length that no fsync has covered.

    ``seq`` orders it among all changes of the file system. Without ``data`` it is a change of length only.
    """

    seq: int
    offset: int
    data: bytes | None
    size_before: int
    size_after: int

    @property
    def shrinks(self) -> bool:
        """Whether the file is shorter afterwards."""
        return self.size_after < self.size_before

    def apply(self, content: bytearray) -> None:
        """Make the change to a file's bytes."""
        if self.data is None:
            resize(content, self.size_after)
        else:
            overwrite(content, self.offset, self.data)

    def sectors(self, sector: int) -> list[tuple[int, int, bytes]]:
        """The written bytes, cut where sectors end: (number of the sector, offset, bytes)."""
        return [] if self.data is None else list(_cut(self.offset, self.data, sector))


def _cut(offset: int, data: bytes, sector: int) -> Iterator[tuple[int, int, bytes]]:
    at, end = offset, offset + len(data)
    while at < end:
        stop = min(end, (at // sector + 1) * sector)
        yield at // sector, at, data[at - offset : stop - offset]
        at = stop


def resize(content: bytearray, size: int) -> None:
    """Cut off what is beyond ``size`` bytes, or lengthen with zeros."""
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def overwrite(content: bytearray, offset: int, data: bytes) -> None:
    """Put bytes at an offset; a gap before it is filled with zeros."""
    if offset > len(content):
        resize(content, offset)
    content[offset : offset + len(data)] = data


@dataclass
class NameChange:
    """A change to one or two directories that no fsync has covered.

    ``changes`` are (directory, name, inode number; None: the name is gone). They reach the medium together: that
    makes a rename atomic.
    """

    seq: int
    changes: tuple[tuple[int, bytes, int | None], ...]

    def names(self) -> set[tuple[int, bytes]]:
        """The (directory, name) pairs that it touches."""
        return {(directory, name) for directory, name, _ in self.changes}

    def touches(self, directory: int) -> bool:
        """Whether it changes a directory, given by its inode number."""
        return any(changed == directory for changed, _, _ in self.changes)


@dataclass
class Inode:
    """What files and directories have in common. ``mode`` holds the kind, too; ``path`` is the last one seen."""

    number: int
    mode: int
    uid: int = 0
    gid: int = 0
    links: int = 1
    atime_ns: int = field(default_factory=time.time_ns)
    mtime_ns: int = field(default_factory=time.time_ns)
    path: str = ""


@dataclass
class File(Inode):
    """A file: ``data`` is what programs see, ``durable`` what is on the medium for certain."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[DataChange] = field(default_factory=list)

    def settle(self) -> None:
        """Make all that is pending durable, as a successful fsync does."""
        for change in self.pending:
            change.apply(self.durable)
        self.pending.clear()


@dataclass
class Directory(Inode):
    """A directory: name to inode number, as programs see it and as the medium holds it for certain."""

    entries: dict[bytes, int] = field(default_factory=dict)
    durable: dict[bytes, int] = field(default_factory=dict)
    parent: int = 1
