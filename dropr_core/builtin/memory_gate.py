"""The door of both halves of the storage ``memory``.

Owns one lock beside the guard of the storage kit (closed, forked, opened only to look). Must not know lanes or queues.
"""

import contextlib
import threading
from collections.abc import Iterator

from dropr_core.contracts.context import Context
from dropr_core.storage_kit.guard import Guard


class Gate(Guard):
    """The door of one half."""

    def __init__(self, lock: "threading.RLock", context: Context, half: str) -> None:
        super().__init__(f"the {half} of {context.node}", read_only=context.read_only)
        self._lock = lock

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, nobody else touches the medium. Raises Closed."""
        self.enter(write=False)  # before the lock: in a forked child nobody would ever give it back
        with self._lock:
            self.enter(write=False)
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """As `reading`, to change something. Raises StoreReadOnly."""
        with self.reading():
            self.enter(write=True)
            yield
