"""Who may still use an opened store.

Owns three refusals: after close, in a forked child, and a write to what was opened to look. Must not know what a call
does.
"""

import os
from pathlib import Path

from dropr_core.errors import Closed, StoreReadOnly


class Guard:
    """The door of one half."""

    __slots__ = ("_pid", "_what", "closed", "read_only")

    def __init__(self, what: Path | str, *, read_only: bool = False) -> None:
        self._what, self.read_only, self._pid = what, read_only, os.getpid()
        self.closed = False
        """Set by whoever closes the half."""

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened it: what its parent holds is not to be touched."""
        return os.getpid() != self._pid

    def enter(self, *, write: bool) -> None:
        """Raise Closed after close or in a forked child, StoreReadOnly for a write to what was opened to look."""
        if self.closed:
            raise Closed(f"{self._what} was closed")
        if os.getpid() != self._pid:
            raise Closed(f"{self._what} was opened before a fork; open the node anew in the child process")
        if write and self.read_only:
            raise StoreReadOnly(f"{self._what} was opened only to look")
