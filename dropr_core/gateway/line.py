"""One connection of a stream gateway.

Owns what is read ahead, what waits to be written, and when a reader is too slow. Knows the contract of `Line` and no
dialect.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from dropr_core.gateway.budget import Budget

READ_AHEAD = 256 * 1024
"""Bytes that are read before the dialect asks for them."""
WRITE_AHEAD = 256 * 1024
"""Bytes that wait in the kernel's stead before `write` waits."""
SLOW = 30.0
"""Seconds without a byte taken after which a reader is cut off."""


class StreamLine(asyncio.Protocol):
    """See `Line` of the contract; a protocol of the event loop at the same time."""

    def __init__(self, stopping: asyncio.Event, arrived: Callable[["StreamLine"], None], budget: Budget) -> None:
        self.stopping, self._arrived, self._budget = stopping, arrived, budget
        self.peer, self.secure = "?", True
        self.lost = False
        self.on_end: Callable[[], None] = _nothing
        """Called when the other side has said its last word, and when it is gone."""
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._loop = asyncio.get_running_loop()
        self._hear: Callable[[bytes], bool] | None = None
        self._data = bytearray()
        self._ended = self._paused_reading = False
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # ── from the event loop ──────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_AHEAD)
        self.peer = _name(transport)
        self._arrived(self)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if self._hear is not None and self._reader is not None and not self._data and self._hear(data):
            return
        self._data += data
        if len(self._data) >= READ_AHEAD and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The other side writes no more; we may still answer."""
        self._ended = True
        self._wake()
        self.on_end()
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """It is over."""
        self._ended = self.lost = True
        self._wake()
        self.on_end()
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def pause_writing(self) -> None:
        """The reader is slow."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    # ── for the dialect ──────────────────────────────────────────────────────────────────────────

    async def read(self, most: int = 65536) -> bytes:
        """What has arrived; nothing at its end."""
        while not self._data:
            if self._ended:
                return b""
            if self._reader is not None:
                raise RuntimeError("two tasks read the same line")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._data[:most])
        del self._data[:most]
        if self._paused_reading and len(self._data) < READ_AHEAD // 2:
            self._paused_reading = False
            if not self.lost:
                self._transport.resume_reading()
        return data

    def hear(self, take: Callable[[bytes], bool]) -> None:
        """See the contract."""
        self._hear = take

    def send(self, data: bytes) -> bool:
        """See the contract."""
        if self.lost or self._room is not None or self._transport.is_closing():
            return False
        if len(data) + self._transport.get_write_buffer_size() > WRITE_AHEAD:
            return False  # `write` counts it, and cuts off who does not take it
        self._transport.write(data)
        return True

    async def write(self, data: bytes) -> None:
        """Send; waits for a slow reader."""
        if self.lost or self._transport.is_closing():
            raise ConnectionResetError(f"{self.peer} has gone")
        self._transport.write(data)
        if self._room is not None:
            try:
                await self._until_taken()
            finally:
                self._budget.caught_up(self)

    async def _until_taken(self) -> None:
        while self._room is not None:
            before = self._transport.get_write_buffer_size()
            self._budget.slow(self, before, self._transport.abort)
            await asyncio.wait([self._room], timeout=SLOW)
            if self.lost:
                raise ConnectionResetError(f"{self.peer} has gone, or was slow when there was no room for its answers")
            if self._room is not None and self._transport.get_write_buffer_size() >= before:
                self._transport.abort()
                raise ConnectionAbortedError(f"{self.peer} took nothing for {SLOW:g} s and was cut off")

    # ── for the door ─────────────────────────────────────────────────────────────────────────────

    @property
    def waits(self) -> bool:
        """Whether the dialect waits for something to read."""
        return self._reader is not None

    def end_reading(self) -> None:
        """As if the other side had nothing more to say."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Send what is written, then end."""
        if not self.lost:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        if not self.lost:
            self._transport.abort()


def _nothing() -> None:
    """Nobody wants to know."""


def _name(transport: asyncio.BaseTransport) -> str:
    peer: Any = transport.get_extra_info("peername")
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return "a local process"
