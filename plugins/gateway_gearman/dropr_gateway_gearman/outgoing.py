"""What waits to be written to one connection: many speak to a client, and nobody waits for a slow one.

Owns `Outgoing`. Knows no packets.
"""

import asyncio

from dropr_core.contracts.gateway import Line


class Outgoing:
    """Bytes in order, bounded. Who pushes never waits; the connection's own loop does, in `flush`."""

    def __init__(self, line: Line, most: int) -> None:
        self._line, self._most = line, most
        self._parts, self._size, self._planned = list[bytes](), 0, False
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing can be written any more."""

    def push(self, data: bytes) -> None:
        """Write it soon. If too much waits already, the reader is too slow to be kept: the connection ends."""
        if self.broken.done():
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._most:
            self._break()
        elif not self._planned and self._task is None:
            self._planned = True
            self._loop.call_soon(self._hand_on)

    def _hand_on(self) -> None:
        """Write all of this step of the event loop. No task wakes for it, unless the reader is slow."""
        self._planned = False
        if self._parts and self._task is None:
            data = b"".join(self._parts)
            if self._line.send(data):
                self._parts.clear()
                self._size -= len(data)
            else:
                self._task = self._loop.create_task(self._write())

    @property
    def waits(self) -> bool:
        """Whether something is not handed on yet."""
        return bool(self._parts) or self._task is not None

    async def flush(self) -> None:
        """Wait until all is handed on; at once if it is."""
        self._hand_on()
        while self._task is not None and not self.broken.done():
            await asyncio.wait((self._task, self.broken), return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Nothing more is written."""
        self._break()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _write(self) -> None:
        try:
            while self._parts:
                data = b"".join(self._parts)
                self._parts.clear()
                await self._line.write(data)
                self._size -= len(data)
        except ConnectionError:
            self._break()
        finally:
            self._task = None

    def _break(self) -> None:
        self._parts.clear()
        if not self.broken.done():
            self.broken.set_result(None)


__all__ = ["Outgoing"]
