"""How many bytes the connections of one gateway hold in memory together.

Owns the count of what is on its way into the store, which waits for room, and of what slow readers leave lying, of whom
the one that is slow for longest is cut off. Must not know what the bytes are.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager


class Budget:
    """For the event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._slow: OrderedDict[object, tuple[int, Callable[[], None]]] = OrderedDict()
        self._left = 0
        """Bytes that slow readers have not taken."""

    def take(self, size: int) -> bool:
        """Have so many bytes if there is room now, until `give`. What `spend` does without a task."""
        size = min(size, self._limit)
        if self._waiting or self._used + size > self._limit:
            return False
        self._used += size
        return True

    def give(self, size: int) -> None:
        """Have them no more."""
        self._give(min(size, self._limit))

    @asynccontextmanager
    async def spend(self, size: int) -> AsyncGenerator[None, None]:
        """Have so many bytes in the block, as soon as there is room, in the order of asking. What is larger than the
        limit goes alone.
        """
        if not self.take(size):
            size = min(size, self._limit)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._give(size)
                raise
        try:
            yield
        finally:
            self.give(size)

    def _give(self, size: int) -> None:
        self._used -= size
        while self._waiting:
            size, future = self._waiting[0]
            if not future.done():
                if self._used + size > self._limit:
                    return
                self._used += size
                future.set_result(None)
            self._waiting.popleft()

    def slow(self, who: object, size: int, cut_off: Callable[[], None]) -> None:
        """A reader leaves so many bytes lying. Above the limit the one that is slow for longest is cut off."""
        self._left += size - self._slow.get(who, (0, None))[0]
        self._slow[who] = size, cut_off
        while self._left > self._limit and self._slow:
            oldest = next(iter(self._slow))
            cut = self._slow[oldest][1]
            self.caught_up(oldest)
            cut()

    def caught_up(self, who: object) -> None:
        """It has taken everything, or has gone; safe twice."""
        self._left -= self._slow.pop(who, (0, None))[0]
