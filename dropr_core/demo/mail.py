"""What the demo sends, and under which numbers.

Owns the contents and the counts within lanes. Must not know when something is sent, nor what becomes
of it.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import attrs

PRIORITIES = (5, 5, 3, 5, 7, 5, 0, 5, 9, 5)
"""Of the small messages, in turns."""

LOADED = 1 << 20
"""Bytes of the largest file that is read into memory; larger ones are sent by their path."""

_FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})


@attrs.frozen
class Piece:
    """One file as it was when it was sent."""

    name: str
    body: bytes | Path
    """The content, or where it is if that is large."""
    size: int
    sha256: str


@attrs.define
class FileMail:
    """The files of a directory."""

    root: Path
    pattern: str
    max_body: int | None
    skipped: int = 0
    """Larger than a body may be, or unreadable."""

    @classmethod
    def of(cls, directory: Path | None, max_body: int | None) -> "FileMail":
        """The files of a directory; of the running Python's standard library if there is none."""
        if directory is not None:
            return cls(directory, "*", max_body)
        return cls(Path(sysconfig.get_path("stdlib")), "*.py", max_body)

    def paths(self) -> list[Path]:
        """All of them, in the order in which they are sent."""
        found: list[Path] = []
        for directory, below, names in os.walk(self.root):
            below[:] = [name for name in below if name not in _FOREIGN]
            paths = (Path(directory, name) for name in names if fnmatch(name, self.pattern))
            found += [path for path in paths if path.is_file()]  # no FIFOs, no broken links
        return sorted(found)

    def groups(self, paths: list[Path], max_count: int = 100, max_bytes: int = 2 << 20) -> Iterator[list[Piece]]:
        """The files, a handful at a time."""
        group: list[Piece] = []
        size = 0
        for path in paths:
            piece = self._read(path)
            if piece is None:
                self.skipped += 1
                continue
            if group and (len(group) >= max_count or size + piece.size > max_bytes):
                yield group
                group, size = [], 0
            group.append(piece)
            size += piece.size
        if group:
            yield group

    def _read(self, path: Path) -> Piece | None:
        try:
            size = path.stat().st_size
            if self.max_body is not None and size > self.max_body:
                return None
            with path.open("rb") as file:
                body: bytes | Path = path if size > LOADED else file.read()
                digest = hashlib.sha256(body) if isinstance(body, bytes) else hashlib.file_digest(file, "sha256")
        except OSError:
            return None
        name = str(path.relative_to(self.root)).encode("utf-8", "backslashreplace").decode()
        return Piece(name, body, len(body) if isinstance(body, bytes) else size, digest.hexdigest())


class Orders:
    """The small messages: (value, priority), numbered over all and within their lane."""

    def __init__(self) -> None:
        self._number = 0
        self._counts = dict.fromkeys(PRIORITIES, 0)

    def take(self, count: int) -> Iterator[tuple[dict[str, Any], int]]:
        """The next so many."""
        for _ in range(count):
            number = self._number
            self._number += 1
            priority = PRIORITIES[number % len(PRIORITIES)]
            lane_count = self._counts[priority]
            self._counts[priority] = lane_count + 1
            yield (
                {"n": number, "count": lane_count, "sku": f"A-{number % 9973:04}", "pieces": number % 7 + 1,
                 "note": "leave it with the neighbour"},
                priority,
            )  # fmt: skip
