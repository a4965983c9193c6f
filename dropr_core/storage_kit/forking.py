"""A fork finds nothing of a store in use.

Some libraries keep the locks of a file in one record for the whole process, as SQLite does. A forked child inherits the
record, but not the locks: it would believe that it holds what only its parent holds
(https://sqlite.org/howtocorrupt.html, section 2.6). So a store lets go of everything before a fork and takes it again
when it is needed next: the parent in the store it has, the child in one that it opens itself.

Owns that. Where a store cannot let go in time, or a file belongs to somebody else, the child is refused that file:
never a commit that is not one. Must not know what the files are used for.
"""

import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from dropr_core.errors import StoreError
from dropr_core.system.loading import unforked


class Pausable(Protocol):
    """Somebody who keeps files open and locked."""

    def pause(self) -> bool:
        """Close them and open none until `resume`; False if that cannot be had soon."""
        ...

    def resume(self) -> None:
        """Go on: they may be opened again."""
        ...


class Forks:
    """What a plugin does around the forks of its process. One for each plugin, since forks are the process's."""

    def __init__(self, open_files: Callable[[], Iterable[str]]) -> None:
        """``open_files``: those that are open still, when everybody has paused."""
        self._open_files = open_files
        self._known: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self._paused: list[Pausable] = []
        self._left: frozenset[tuple[int, int]] = frozenset()
        self._inherited: frozenset[tuple[int, int]] = frozenset()
        unforked.follow(self)

    def watch(self, one: Pausable) -> None:
        """Pause ``one`` around forks, as long as it lives."""
        self._known.add(one)

    def check(self, path: Path) -> None:
        """Raise StoreError if this file was in use when this process was forked off."""
        if self._inherited and _identity(path) in self._inherited:
            raise StoreError(
                f"{path} was in use at the moment of a fork and cannot be opened in this child process: "
                "fork before the node is opened, or start the process with exec (multiprocessing: spawn)"
            )

    def before_fork(self) -> None:
        """Pause all of them."""
        self._paused = [one for one in list(self._known) if one.pause()]
        self._left = frozenset(filter(None, (_identity(Path(name)) for name in self._open_files())))

    def after_fork_in_parent(self) -> None:
        """They go on."""
        paused, self._paused = self._paused, []
        for one in paused:
            one.resume()

    def after_fork_in_child(self) -> None:
        """What stayed open is the parent's."""
        self._inherited |= self._left
        self._paused = []
        self._known = weakref.WeakSet()  # they are the parent's; their own guard refuses every call here


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
