"""What is on the medium after a power cut: which of the pending changes have reached it.

Owns the choice, under a named policy and a seeded generator, so that the same seed gives the same disk. Every
answer is a state that the rules of `filesystem` allow, with these of a disk:

* a sector is written whole or not at all, and sectors reach the medium in any order;
* the length of a file may be written before or after its bytes; where it was, and they were not, a reader finds
  zeros or whatever the blocks held before;
* a shortening is a barrier: nothing written to the file after it has reached the medium unless it has as well.
"""

from __future__ import annotations

import random
import stat
from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

from powercut.disk.filesystem import ROOT, FileSystem, put
from powercut.disk.inodes import DataChange, Directory, File, NameChange, overwrite, resize
from powercut.disk.trees import KeptDirectory, KeptFile, Tree

Policy = Literal["lose", "keep", "prefix", "random", "meta-first", "data-first"]
"""What survives of the pending changes.

* ``lose``: nothing
* ``keep``: everything, as when a process is killed
* ``prefix``: everything up to a random moment; the last write is torn
* ``random``: each sector, length and change of names by itself
* ``meta-first``: names and lengths, but no bytes (zeros instead)
* ``data-first``: bytes and lengths, but no names
"""

POLICIES: tuple[Policy, ...] = get_args(Policy)


def survivors(disk: FileSystem, policy: Policy, seed: int | str) -> Tree:
    """The tree that is on the medium if the power fails now."""
    return _Cut(disk, policy, random.Random(seed)).tree()


class _Cut:
    """One power cut."""

    def __init__(self, disk: FileSystem, policy: Policy, rng: random.Random) -> None:
        self._disk = disk
        self._policy = policy
        self._rng = rng
        self._horizon = rng.randint(0, disk.seq) if policy == "prefix" else 0
        """The last change that reached the medium (torn), for ``prefix``."""
        self._contents: dict[int, bytes] = {}
        """What became of files that were met already: a file may have two names."""
        self._met = {ROOT}

    def tree(self) -> Tree:
        """Everything below the root."""
        durable = {inode.number: dict(inode.durable) for inode in self._disk.inodes.values()
                   if isinstance(inode, Directory)}  # fmt: skip
        for change in self._names():
            for directory, name, target in change.changes:
                put(durable[directory], name, target)
        return self._below(ROOT, durable)

    def _names(self) -> list[NameChange]:
        """The changes of names that survive."""
        pending = self._disk.pending
        match self._policy:
            case "lose" | "data-first":
                return []
            case "prefix":
                return [change for change in pending if change.seq <= self._horizon]
            case "random":
                share = self._rng.choice((0.0, 0.5, 1.0))
                return self._disk.with_causes([change for change in pending if self._rng.random() < share])
            case _:
                return pending

    def _below(self, directory: int, entries: dict[int, dict[bytes, int]]) -> Tree:
        tree: Tree = {}
        for name, number in sorted(entries[directory].items()):
            inode = self._disk.inodes[number]
            if stat.S_ISFIFO(inode.mode):
                continue  # nothing is stored in it
            if isinstance(inode, File):
                if number not in self._contents:
                    self._contents[number] = bytes(self._content(inode))
                tree[name] = KeptFile(inode.mode, number, self._contents[number])
            elif number not in self._met:  # a directory that moved stands under one of its names
                self._met.add(number)
                tree[name] = KeptDirectory(inode.mode, self._below(number, entries))
        return tree

    def _content(self, file: File) -> bytearray:
        """What survives of a file's bytes."""
        if self._policy == "lose" or not file.pending:
            return file.durable
        if self._policy == "random":
            return self._scrambled(file)
        if self._policy == "meta-first":
            content, _ = self._partly(file, file.pending, lambda _: 0)
            return content
        content = bytearray(file.durable)
        for change in file.pending:
            if self._policy != "prefix" or change.seq < self._horizon:
                change.apply(content)
            elif change.seq == self._horizon:
                self._tear(content, change)
        return content

    def _tear(self, content: bytearray, change: DataChange) -> None:
        """Only the leading sectors of a write reach the medium."""
        if change.data is None:
            change.apply(content)
            return
        parts = change.sectors(self._disk.sector)
        for _, offset, data in parts[: self._rng.randint(0, len(parts))]:
            overwrite(content, offset, data)

    def _partly(
        self, file: File, changes: list[DataChange], keep: Callable[[int], int]
    ) -> tuple[bytearray, dict[int, int]]:
        """The durable bytes with, of the n writes to each sector, the first ``keep(n)``; and how many each kept.

        All changes of length are made. A shortening that ends inside a sector rewrites it, so the writes to that
        sector before it are kept.
        """
        writes = [change.sectors(self._disk.sector) for change in changes]
        total: Counter[int] = Counter()
        at_least: dict[int, int] = {}
        for change, parts in zip(changes, writes, strict=True):
            total.update(number for number, _, _ in parts)
            if change.shrinks:
                last = change.size_after // self._disk.sector
                at_least[last] = total[last]
        kept = {number: max(keep(count), at_least.get(number, 0)) for number, count in total.items()}

        content = bytearray(file.durable)
        seen: Counter[int] = Counter()
        for change, parts in zip(changes, writes, strict=True):
            for number, offset, data in parts:
                seen[number] += 1
                if seen[number] <= kept[number]:
                    overwrite(content, offset, data)
            if change.data is None or change.size_after > len(content):
                resize(content, change.size_after)
        return content, kept

    def _scrambled(self, file: File) -> bytearray:
        """Sectors in any order, any length."""
        # Nothing after a shortening survives unless the shortening does.
        stops = [place for place, change in enumerate(file.pending) if change.shrinks] + [len(file.pending)]
        changes = file.pending[: self._rng.choice(stops)]

        # Each sector holds the outcome of the first so many writes to it.
        share: Callable[[int], int] = self._rng.choice(
            (lambda _: 0, lambda count: count, *[lambda count: self._rng.randint(0, count)] * 2)
        )
        content, kept = self._partly(file, changes, share)
        resize(content, self._length(file, changes))

        # Where the length is on the medium and the bytes are not, blocks may hold what they held before.
        if self._rng.random() < 0.3:
            for number, count in kept.items():
                start = max(number * self._disk.sector, len(file.durable))
                stop = min((number + 1) * self._disk.sector, len(content))
                if count == 0 and start < stop:
                    content[start:stop] = self._rng.randbytes(stop - start)
        return content

    def _length(self, file: File, changes: list[DataChange]) -> int:
        """Any that the file has had since its last shortening, or one between, where a sector ends."""
        sizes = [len(file.durable)]
        for change in changes:
            if change.shrinks:
                sizes = [change.size_after]
            elif change.size_after > change.size_before:
                sizes.append(change.size_after)
                between = self._rng.randint(change.size_before, change.size_after)
                boundary = between // self._disk.sector * self._disk.sector
                if boundary > change.size_before:
                    sizes.append(boundary)
        return sizes[-1] if self._rng.random() < 0.3 else self._rng.choice(sizes)
