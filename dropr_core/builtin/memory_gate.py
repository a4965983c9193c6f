"""What both halves of the storage ``memory`` check before every call.

Owns the door: closed, forked, read-only, one lock. Must not know lanes or queues.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

from dropr_core.contracts.context import Context
from dropr_core.errors import Closed, QueueFull, StoreReadOnly


class Gate:
    """The door of one half."""

    def __init__(self, lock: "threading.RLock", context: Context, half: str) -> None:
        self._lock, self._context, self._half = lock, context, half
        self._pid = os.getpid()
        self.closed = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, nobody else touches the medium. Raises Closed."""
        if self._pid != os.getpid():
            raise Closed(f"this {self._half} was opened in a parent process; open the node again after the fork")
        with self._lock:
            if self.closed:
                raise Closed(f"this {self._half} is closed")
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """As `reading`, to change something. Raises StoreReadOnly."""
        with self.reading():
            if self._context.read_only:
                raise StoreReadOnly(f"the {self._half} of {self._context.node} was opened only to look")
            yield


def check_room(what: str, limits: tuple[int | None, int | None], messages: int, size: int) -> None:
    """Raise QueueFull if ``messages`` or ``size`` bytes are over their limit (None: no limit)."""
    for number, limit, unit in ((messages, limits[0], "messages"), (size, limits[1], "bytes")):
        if limit is not None and number > limit:
            raise QueueFull(f"{what} would hold {number} {unit}: the limit is {limit}; wait, or raise the limit")
