"""The segment files of one log: which there are, and those that are open.

Owns the directory of a log. Files are closed again when a process has too many open, whichever log they belong to.
Called under the half's lock. Must not know what stands in them.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dropr_storage_fs.files import disk, shared
from dropr_storage_fs.files.segment import Segment, pack_header, read_header
from dropr_storage_fs.files.shared import LogSlots

OPEN_FILES = 64
"""Descriptors that one half keeps open for all its logs together."""

Tell = Callable[[str, Mapping[str, Any]], None]
"""Told of an event of the store and its details."""


class OpenFiles:
    """Descriptors of segments, over all logs of a half: the one that was used longest ago is closed for a new one."""

    def __init__(self, most: int = OPEN_FILES) -> None:
        self._most = most
        self._open: dict[int, Segment] = {}
        self._newest: Segment | None = None
        self.fresh = False
        """Whether one was opened since somebody set this to False."""

    def add(self, segment: Segment) -> None:
        """Keep one open from now on."""
        if len(self._open) >= self._most:
            for oldest in [one for one in self._open.values() if not one.pins][: len(self._open) - self._most + 1]:
                self.close(oldest)
        self._newest = self._open[id(segment)] = segment
        self.fresh = True

    def use(self, segment: Segment) -> None:
        """One that is open is used: it is the last to be closed."""
        if segment is not self._newest:
            self._newest = self._open[id(segment)] = self._open.pop(id(segment))

    def close(self, segment: Segment) -> None:
        """Close one; safe twice."""
        self._open.pop(id(segment), None)
        segment.close()

    def close_any(self) -> None:
        """Close all; each is opened again when it is needed."""
        for segment in [one for one in self._open.values() if not one.pins]:
            self.close(segment)

    def __len__(self) -> int:
        return len(self._open)


class Segments:
    """Segment files of one log, each named by the first sequence that it may hold."""

    def __init__(
        self, directory: Path, slots: LogSlots, open_files: OpenFiles, tell: Tell, *, read_only: bool = False
    ) -> None:
        self.directory, self._slots, self._open_files, self._tell = directory, slots, open_files, tell
        self._read_only = read_only
        self._epoch = slots.get(shared.EPOCH)
        self._files: dict[int, Segment] = {}
        self._names: list[int] | None = None

    @property
    def epoch(self) -> int:
        """Changes when files are replaced or removed."""
        return self._slots.get(shared.EPOCH)

    def path(self, first: int) -> Path:
        """The file of a segment."""
        return self.directory / f"{first:016x}.seg"

    def names(self) -> list[int]:
        """First sequences of all segments, in order."""
        self._renew()
        if self._names is None:
            self._names = self.listed()
        return self._names

    def listed(self) -> list[int]:
        """The same, read from the directory now."""
        try:
            return sorted(int(path.stem, 16) for path in self.directory.iterdir() if path.suffix == ".seg")
        except FileNotFoundError:
            return []

    def forget_names(self) -> None:
        """Read the directory anew the next time."""
        self._names = None

    def _renew(self) -> None:
        epoch = self._slots.get(shared.EPOCH)
        if self._epoch != epoch:
            self.close()  # another process replaced or removed files
            self._names = None
            self._epoch = epoch

    def open(self, first: int) -> Segment | None:
        """A segment; None if it is gone or its header is damaged."""
        slots = self._slots
        if self._epoch != slots.common.slots[slots.row + shared.EPOCH]:  # asked here: every call comes by
            self._renew()
        found = self._files.get(first)
        if found is not None and found.fd >= 0:
            self._open_files.use(found)
            return found
        path = self.path(first)
        try:
            fd = disk.open_file(path, write=not self._read_only)
        except FileNotFoundError:
            return None
        try:
            found = read_header(fd, first)
        except BaseException:
            os.close(fd)
            raise
        if found is None:
            os.close(fd)
            self._tell("corrupt", {"file": str(path), "error": "the header of this segment is damaged"})
            return None
        self._keep(found)
        return found

    def _keep(self, found: Segment) -> None:
        self._open_files.add(found)
        if len(self._files) > 2 * OPEN_FILES:  # of those that were closed nothing is kept
            self._files = {first: one for first, one in self._files.items() if one.fd >= 0}
        self._files[found.first] = found

    def size(self, first: int) -> int:
        """Bytes of a segment's file; 0 if it is gone."""
        found = self.open(first)
        return 0 if found is None else os.fstat(found.fd).st_size

    def changed(self) -> None:
        """Files were replaced or removed: other processes must open them anew."""
        self._epoch = self._slots.get(shared.EPOCH) + 1
        self._slots.set(shared.EPOCH, self._epoch)
        self._names = None

    def create(self, first: int, count: int, size: int) -> Segment:
        """A new segment, its name on stable storage. A file of that name holds nothing acknowledged: it goes aside."""
        disk.make_directory(self.directory)
        path = self.path(first)
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_suffix(f".aside-{os.urandom(3).hex()}"))
        salt = int.from_bytes(os.urandom(4), "little")
        fd = disk.open_file(path, write=True, create=True)
        try:
            disk.write_at(fd, pack_header(salt, first, count, size), 0)
            disk.flush_file(fd)
            disk.flush_directory(self.directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self.changed()
        made = Segment(fd, first, salt, count, size)
        self._keep(made)
        return made

    def drop(self, first: int) -> None:
        """Forget an open file."""
        old = self._files.pop(first, None)
        if old is not None:
            self._open_files.close(old)
        self._names = None

    def remove(self, first: int) -> None:
        """Remove a segment of which nothing is needed any more. Not durable: it may come back, that harms nobody."""
        self.drop(first)
        with contextlib.suppress(FileNotFoundError):
            self.path(first).unlink()
        self.changed()

    def dead_letter(self, first: int) -> None:
        """Keep a segment as evidence, under a name that nobody reads, durably."""
        self.drop(first)
        path = self.path(first)
        path.rename(path.with_suffix(f".aside-{os.urandom(3).hex()}"))
        disk.flush_directory(self.directory)

    def report_damage(self, first: int, start: int, end: int) -> None:
        """Tell that these bytes of a segment cannot be read."""
        error = "these bytes are damaged; what they held is lost, all else is read"
        self._tell("corrupt", {"file": str(self.path(first)), "from": start, "to": end, "error": error})

    def report_torn(self, first: int, start: int, size: int) -> None:
        """Tell that the end of a segment was torn off."""
        self._tell("torn", {"file": str(self.path(first)), "from": start, "bytes": size})

    def close(self) -> None:
        """Close all files; safe twice."""
        for first in list(self._files):
            self.drop(first)
