"""What answers to all peers together may cost in memory.

Owns the bytes of answers that were given and are not gone yet, over all peers and all listeners of a process, and how
many the next one may have. Must not know verbs, frames or sockets. Safe from many threads.

Each peer that fetches may get 4 MiB at once, and holds them in this process for as long as it reads. After an outage
all of them ask in the same second; a thousand would be four gigabytes. So the room is shared as that for pushes is
(delivery/push_budget.py): the next answer gets a quarter of what is free. Nobody waits for room: where next to nothing
is left there are small answers, so slow readers stop nobody.
"""

import threading
import weakref
from collections import deque
from concurrent.futures import Future

ALL_ANSWERS = 64 << 20
"""Bytes of answers under way to all peers together, but for the small ones."""
SMALL = 64 << 10
"""Bytes that an answer may have in any case."""
COUNTED = 4 << 10
"""Bytes from which on an answer is counted; below there is nothing to be saved."""


class AnswerBudget:
    """The room for answers, shared by all who answer for one process."""

    def __init__(self, size: int = ALL_ANSWERS) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._total = 0
        self._of: dict[str, int] = {}
        self._gone: deque[tuple[str, int]] = deque()
        """What is to be given back. Whoever lets go may do so anywhere, also in the middle of what is locked here."""

    def room(self, peer: str) -> int:
        """Bytes that the next answer to ``peer`` may have, `SMALL` at least; 0: there is no room, and it has some."""
        with self._lock:
            self._settle()
            quarter = (self._size - self._total) // 4
            if quarter >= SMALL:
                return quarter
            return 0 if peer in self._of else SMALL

    def count(self, holder: "Future[bytes]", peer: str, size: int) -> None:
        """``holder`` has an answer of so many bytes: they count until nobody has the holder any more."""
        if size < COUNTED:
            return
        with self._lock:
            self._settle()
            self._total += size
            self._of[peer] = self._of.get(peer, 0) + size
        weakref.finalize(holder, self._gone.append, (peer, size)).atexit = False

    @property
    def under_way(self) -> int:
        """Bytes that are counted now."""
        with self._lock:
            self._settle()
            return self._total

    def _settle(self) -> None:
        while self._gone:
            peer, size = self._gone.popleft()
            self._total -= size
            left = self._of.pop(peer) - size
            if left:
                self._of[peer] = left


__all__ = ["ALL_ANSWERS", "COUNTED", "SMALL", "AnswerBudget"]
