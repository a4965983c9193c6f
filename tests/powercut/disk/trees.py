"""What is left on a medium, as a tree of directories and files; to a real disk and from it.

Owns the shape, its fingerprint and its size. Must not know how the tree was chosen.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import NamedTuple, TypeAlias

from powercut.disk.filesystem import ROOT, FileSystem


class KeptFile(NamedTuple):
    """A file that is left; names with the same number are names of one file."""

    mode: int
    number: int
    content: bytes


class KeptDirectory(NamedTuple):
    """A directory that is left."""

    mode: int
    entries: Tree


Tree: TypeAlias = dict[bytes, KeptFile | KeptDirectory]
"""Name to what stands there."""


def load(disk: FileSystem, path: Path) -> None:
    """Fill an empty file system from a real directory; all of it counts as durable."""
    known: dict[tuple[int, int], int] = {}

    def fill(place: Path, into: int) -> None:
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            about = entry.stat(follow_symlinks=False)
            name, mode, owner = os.fsencode(entry.name), about.st_mode, (about.st_uid, about.st_gid)
            if entry.is_dir(follow_symlinks=False):
                fill(Path(entry.path), disk.mkdir(into, name, mode, *owner).number)
            elif (about.st_dev, about.st_ino) in known:
                disk.link(known[about.st_dev, about.st_ino], into, name)
            elif stat.S_ISREG(mode):
                file = disk.create(into, name, mode, *owner)
                known[about.st_dev, about.st_ino] = file.number
                disk.write(file.number, 0, Path(entry.path).read_bytes())

    fill(path, ROOT)
    disk.settle()


def write(tree: Tree, path: Path) -> None:
    """Write a tree into a real directory, in place of what was in it."""
    path.mkdir(parents=True, exist_ok=True)
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    _write_below(tree, path, {})


def _write_below(tree: Tree, path: Path, first_name: dict[int, Path]) -> None:
    for name, kept in tree.items():
        place = path / os.fsdecode(name)
        if isinstance(kept, KeptDirectory):
            place.mkdir()
            _write_below(kept.entries, place, first_name)
        elif kept.number in first_name:
            place.hardlink_to(first_name[kept.number])
            continue
        else:
            first_name[kept.number] = place
            place.write_bytes(kept.content)
        place.chmod(stat.S_IMODE(kept.mode))


def fingerprint(tree: Tree) -> bytes:
    """The same for trees with the same names, kinds and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, kept in tree.items():
        inner = fingerprint(kept.entries) if isinstance(kept, KeptDirectory) else kept.content
        digest.update(b"%d %s %s %d " % (len(name), name, type(kept).__name__.encode(), len(inner)))
        digest.update(inner)
    return digest.digest()


def size(tree: Tree) -> int:
    """The bytes of all files."""
    return sum(size(kept.entries) if isinstance(kept, KeptDirectory) else len(kept.content) for kept in tree.values())
