"""The files of the runs of one kind, as one process has them open.

Owns their names, how many are open at once, and removing those that nobody knows any more. Must not know what stands
in them.
"""

import contextlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.files import sorted_run
from dropr_storage_fs.files.sorted_run import Entry, SortedRun

R = TypeVar("R")
OPEN_RUNS = 32
"""Descriptors of runs of one kind that a process keeps."""


class RunFiles:
    """Files ``<prefix><number>`` in one directory."""

    def __init__(self, directory: Path, prefix: str, events: Events) -> None:
        self._directory, self._prefix, self._events = directory, prefix, events
        self._known: dict[int, SortedRun] = {}

    def path(self, number: int) -> Path:
        """The file of a run."""
        return self._directory / f"{self._prefix}{number:08d}"

    def __iter__(self) -> Iterator[tuple[int, Path]]:
        """(number, path) of all that are there."""
        for path in sorted(self._directory.glob(f"{self._prefix}*")):
            digits = path.name.removeprefix(self._prefix)
            if digits.isdigit():
                yield int(digits), path

    def all(self, runs: Mapping[int, R]) -> Iterator[tuple[R, SortedRun]]:
        """Every run that can be read, the newest first."""
        for number in [number for number in self._known if number not in runs]:
            self._known.pop(number).close()
        for number in sorted(runs, reverse=True):
            found = self.run(number)
            if found is not None:
                yield runs[number], found

    def run(self, number: int) -> SortedRun | None:
        """One of them; None if it cannot be read."""
        found = self._known.pop(number, None)
        if found is None:
            try:
                found = SortedRun(self.path(number), self._tell)
            except FileNotFoundError:
                self._tell(self.path(number), 0, "this file is missing; what it held is lost")
                return None
        self._known[number] = found  # the last to be closed
        if len(self._known) > OPEN_RUNS:
            for one in list(self._known.values())[:-OPEN_RUNS]:
                one.close()
        return found if found.good else None

    def sound(self, number: int) -> bool:
        """Whether a run can be read, and what it finds can be relied on."""
        found = self.run(number)
        return found is not None and found.sound() and not found.flawed

    def write(self, number: int, entries: Iterable[Entry]) -> None:
        """Make one, durably. Raises OSError."""
        sorted_run.write(self.path(number), entries)
        self.forget(number)  # of the same number, made in vain before

    def forget(self, number: int) -> None:
        """Close one."""
        stale = self._known.pop(number, None)
        if stale is not None:
            stale.close()

    def set_aside(self, number: int) -> None:
        """Keep one as evidence, under a name that nobody reads."""
        path = self.path(number)
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"{path.name}.aside-{os.urandom(3).hex()}"))

    def tidy(self, runs: Container[int]) -> None:
        """Remove the files of those that nobody knows any more."""
        for number, path in self:
            if number not in runs:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _tell(self, path: Path, at: int, error: str) -> None:
        self._events.tell("corrupt", {"file": str(path), "from": at, "error": error})

    def close(self) -> None:
        """Close all files; safe twice."""
        while self._known:
            self._known.popitem()[1].close()
