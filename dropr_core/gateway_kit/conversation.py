"""One connection as a conversation: commands come in, are carried out one after the other, answers go out in order.

Owns reading, writing, and who carries out. Short commands that need nobody's patience are begun right where their bytes
arrive, and answered where their commit ends: no task wakes for them, which would cost more than they do. All others,
and whatever comes while one is under way, are left to the connection's task. Must not know any command, nor what it
does.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from dropr_core.contracts.gateway import Line

C = TypeVar("C")
T = TypeVar("T")

AHEAD = 64 * 1024
"""Bytes of commands that are read while one of them waits."""
UNWRITTEN = 64 * 1024
"""Bytes of answers that are gathered before they are written."""


class Conversation(ABC, Generic[C]):
    """Made for one connection; `converse` serves it."""

    def __init__(self, line: Line, feed: Callable[[bytes], Iterable[C]]) -> None:
        """``feed``: gives the commands that are whole with these bytes."""
        self._line, self._feed = line, feed
        self._loop = asyncio.get_running_loop()
        self._pending: deque[C] = deque()
        self._out: list[bytes] = []
        self._unwritten = 0
        self._ended = self._eof = self._over = False
        self._ahead: asyncio.Task[bytes] | None = None  # a read that a waiting reserve began
        self._resting: asyncio.Timeout | None = None  # while the task waits for something to read
        self._begun = False  # a short command is under way
        self._idle: asyncio.Future[None] | None = None  # the task waits for its end

    # ── what a dialect does ──────────────────────────────────────────────────────────────────────

    @abstractmethod
    def begin(self) -> bool:
        """Take the next of the pending commands, with those behind it that go with it, and begin it, if it is short;
        its end calls `finish`, later. False: nothing was taken.
        """

    @abstractmethod
    async def carry_out(self) -> None:
        """Take the next of the pending commands, and carry it out."""

    @property
    @abstractmethod
    def holds(self) -> bool:
        """Whether there is something that it shall be able to end while the gateway drains."""

    @property
    def unsent(self) -> bool:
        """Whether the reader is too slow for what it has been answered."""
        return bool(self._out)

    # ── the task ─────────────────────────────────────────────────────────────────────────────────

    async def converse(self) -> None:
        """Serve it until it ends."""
        stopping = asyncio.ensure_future(self._line.stopping.wait())
        stopping.add_done_callback(lambda _: self._wake())
        self._line.hear(self._hear)
        try:
            while not self._ended and (self._pending or await self._read()):
                if self._pending:
                    await self.carry_out()
            await self.flush()
        finally:
            self._over = True
            stopping.cancel()
            if self._ahead is not None:
                self._ahead.cancel()

    async def _read(self) -> bool:
        """Get more commands; False if none will come."""
        await self.flush()
        while not (self._eof or self._ended) and (self.holds or self._begun or not self._line.stopping.is_set()):
            reading, self._ahead = self._ahead, None
            data = None
            try:
                async with asyncio.timeout(None) as self._resting:
                    data = await (reading or self._line.read())
            except TimeoutError:  # the gateway drains, or there is something that only the task can do
                pass
            finally:
                self._resting = None
            if self._begun:
                self._idle = self._loop.create_future()
                await self._idle
            if data is not None:
                self.take_in(data)
                return bool(self._pending) or not self._eof
            if self._pending:
                return True
            await self.flush()
        return False

    def _wake(self) -> None:
        # One that is ending already wakes it anyway, and may not be changed any more.
        if self._resting is not None and not self._resting.expired():
            self._resting.reschedule(self._loop.time())

    def take_in(self, data: bytes) -> None:
        """What was read."""
        self._eof = not data
        self._pending.extend(self._feed(data))

    async def meanwhile_reading(self, result: Awaitable[T]) -> T | None:
        """Wait for it, and notice if the connection ends: None then. What arrives is kept for later."""
        waiting = asyncio.ensure_future(result)
        room = AHEAD
        try:
            while not waiting.done() and not self._eof:
                if self._ahead is None and room > 0:
                    self._ahead = asyncio.ensure_future(self._line.read())
                tasks: set[asyncio.Future[Any]] = {waiting}
                if self._ahead is not None:
                    tasks.add(self._ahead)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if self._ahead is not None and self._ahead.done():
                    reading, self._ahead = self._ahead, None
                    data = reading.result()
                    room -= len(data)
                    self.take_in(data)
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
        return None if waiting.cancelled() else waiting.result()

    async def say(self, *answers: bytes) -> None:
        """Answer; waits for a slow reader."""
        self._out += answers
        self._unwritten += sum(map(len, answers))
        if self._unwritten >= UNWRITTEN:
            await self.flush()

    async def flush(self) -> None:
        """Write what was said."""
        if self._out:
            await self._line.write(self._said())

    def _said(self) -> bytes:
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._unwritten = 0
        return data

    # ── without it ───────────────────────────────────────────────────────────────────────────────

    def _hear(self, data: bytes) -> bool:
        """Something came while the task rests; False: it shall read it."""
        if self._begun or self._resting is None or self._pending or self.unsent:
            return False
        self._pending.extend(self._feed(data))
        if self._pending:
            self._go_on()
        return True

    def finish(self, answers: Sequence[bytes]) -> None:
        """The end of what was begun."""
        self._begun = False
        self._out += answers
        self._unwritten += sum(map(len, answers))
        if self._idle is not None:
            idle, self._idle = self._idle, None
            if not idle.done():
                idle.set_result(None)
        elif self._ended:
            self._wake()
        elif not self._over:
            self._go_on()

    def _go_on(self) -> None:
        if self._unwritten < UNWRITTEN and self._pending:
            self._begun = self.begin()
            if not self._begun:
                self._wake()
        elif self._out:
            data = self._said()
            if not self._line.send(data):
                self._out.append(data)
                self._wake()
            elif self._pending and not self._begun:
                self._go_on()
