"""Every disk of one run: before each operation, the disks that a power cut there would leave.

Owns the folder of images (``NUMBER/disk`` with ``NUMBER/about.json`` beside it), which images are written, and how
they are read again. Must not know what a test makes of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from powercut.disk import trees
from powercut.disk.filesystem import FileSystem
from powercut.disk.survivors import POLICIES, Policy, survivors

MAX_BYTES = 2 << 30
"""Bytes of images in all: disks are whole copies, and a long run would fill any machine."""


@dataclass(frozen=True)
class About:
    """Of what moment an image is."""

    at: int
    """How many operations there had been, the next one included."""
    before: str
    """The operation that was next, and its path."""
    policy: Policy
    seed: str
    acks: int
    """Bytes in the file of acknowledgements just before: all that these acknowledge must be on the disk."""


@dataclass
class Explorer:
    """Writes out, at each operation, the disks that are new. ``seen`` is for itself only."""

    folder: Path
    policies: tuple[Policy, ...]
    ack_file: Path | None = None
    seed: int = 0
    max_bytes: int = MAX_BYTES
    images: int = 0
    written: int = 0
    seen: dict[bytes, int] = field(default_factory=dict)
    """Fingerprint of a disk to the greatest number of acknowledged bytes that it was written for."""

    def __post_init__(self) -> None:
        if unknown := set(self.policies) - set(POLICIES):
            raise ValueError(f"no such policy: {', '.join(sorted(unknown))}")

    @property
    def complete(self) -> bool:
        """Whether no disk was left out for want of room."""
        return self.written <= self.max_bytes

    def look(self, disk: FileSystem, at: int, before: str) -> None:
        """Write out what a cut now would leave."""
        if not self.complete:
            return
        # The acknowledgements first: whatever is acknowledged by now must be on each disk written after this line.
        acks = self.ack_file.stat().st_size if self.ack_file else 0
        for number, policy in enumerate(self.policies):
            seed = f"{self.seed}/{at}/{number}"
            tree = survivors(disk, policy, seed)
            key = trees.fingerprint(tree)
            if self.seen.get(key, -1) < acks:  # else the same disk was there with as much acknowledged
                self.seen[key] = acks
                self._write(tree, About(at, before, policy, seed, acks))

    def _write(self, tree: trees.Tree, about: About) -> None:
        self.images += 1
        self.written += trees.size(tree)
        place = self.folder / f"{self.images:06d}"
        trees.write(tree, place / "disk")
        (place / "about.json").write_text(json.dumps(asdict(about)), encoding="utf-8")


def survey(folder: Path) -> Iterator[tuple[Path, About]]:
    """The images in a folder, in the order of the run: (directory, about)."""
    for place in sorted(folder.iterdir()):
        yield place / "disk", About(**json.loads((place / "about.json").read_text(encoding="utf-8")))
