"""A fork finds no SQLite connection of ours open.

SQLite keeps the locks of a file in one record for the whole process. A forked child inherits the record, but not the
locks: it would believe that it holds what only its parent holds, and the parent's last close would take the WAL away
under it (https://sqlite.org/howtocorrupt.html, section 2.6). So the connections are closed before a fork and opened
again when they are needed next, by the parent in the store it has, by the child in one that it opens itself.

Owns that. Where a connection cannot be closed in time, or belongs to somebody else, the child is refused that file:
never a commit that is not one. Must not know what the connections are used for.
"""

import os
import weakref
from pathlib import Path
from typing import Protocol

import apsw

from dropr_core.errors import StoreError


class Pausable(Protocol):
    """Somebody who keeps connections open."""

    def pause(self) -> bool:
        """Close the connections and open none until `resume`; False if that cannot be had soon."""
        ...

    def resume(self) -> None:
        """Go on: connections may be opened again."""
        ...


class Forks:
    """What this process does around its forks. There is one, since forks are the process's."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self._paused: list[Pausable] = []
        self._left: frozenset[tuple[int, int]] = frozenset()
        self._inherited: frozenset[tuple[int, int]] = frozenset()
        os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def watch(self, one: Pausable) -> None:
        """Pause ``one`` around forks, as long as it lives."""
        self._known.add(one)

    def check(self, path: Path) -> None:
        """Raise StoreError if a connection to this file was inherited through a fork."""
        if self._inherited and _identity(path) in self._inherited:
            raise StoreError(
                f"{path} was in use at the moment of a fork and cannot be opened in this child process: "
                "fork before the node is opened, or start the process with exec (multiprocessing: spawn)"
            )

    def _before(self) -> None:
        self._paused = [one for one in list(self._known) if one.pause()]
        self._left = frozenset(filter(None, (_identity(Path(c.filename)) for c in apsw.connections() if c.filename)))

    def _in_parent(self) -> None:
        paused, self._paused = self._paused, []
        for one in paused:
            one.resume()

    def _in_child(self) -> None:
        self._inherited |= self._left
        self._paused = []
        self._known = weakref.WeakSet()  # they are the parent's; their own guard refuses every call here


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


FORKS = Forks()
