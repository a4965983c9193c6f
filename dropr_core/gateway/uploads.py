"""Large bodies on their way in from a dialect, piece by piece.

Owns the file in which one stands until its message is composed: without a name, so that it goes with the process
however that ends. The disk is written to in threads, and looked at while it fills. Must not know dialects or messages.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, cast

from dropr_core.errors import TooBig
from dropr_core.system.os_errors import store_error
from dropr_core.system.ownership import make_private_directory

PIECE = 1 << 20
"""Bytes that are collected before the disk is asked."""
LOOK_EVERY = 16 << 20
"""Bytes between two looks at the room on the disk."""


class SpooledUpload:
    """See `Upload` of the contract."""

    def __init__(self, file: BinaryIO, place: Path, most: int | None, check_room: Callable[[int], None]) -> None:
        """``most``: bytes; ``check_room`` raises QueueFull if so many more would be too many."""
        self.file, self._place, self._most, self._check_room = file, place, most, check_room
        self.size = 0
        self._pieces, self._waiting, self._looked = list[bytes](), 0, 0

    async def write(self, data: bytes) -> None:
        """See the contract."""
        self.size += len(data)
        if self._most is not None and self.size > self._most:
            raise TooBig(
                f"a body of more than {self._most} bytes: the limit is limits.max_body; raise it on both nodes"
            )
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= PIECE:
            await self.flush()

    async def flush(self) -> None:
        """Everything is in the file."""
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        if pieces:
            await asyncio.to_thread(self._write, pieces)

    def _write(self, pieces: list[bytes]) -> None:
        if self.size - self._looked >= LOOK_EVERY or not self._looked:
            self._check_room(sum(map(len, pieces)))
            self._looked = self.size
        try:
            self.file.writelines(pieces)
            self.file.flush()
        except OSError as error:
            raise store_error(error, self._place) from error


@asynccontextmanager
async def spooled(
    place: Path, most: int | None, check_room: Callable[[int], None]
) -> AsyncGenerator[SpooledUpload, None]:
    """An upload below ``place``; its file is gone at the end. Raises StoreError."""

    def opened() -> BinaryIO:
        try:
            make_private_directory(place)
            return cast("BinaryIO", tempfile.TemporaryFile(dir=place, prefix="upload-"))
        except OSError as error:
            raise store_error(error, place) from error

    file = await asyncio.to_thread(opened)
    try:
        yield SpooledUpload(file, place, most, check_room)
    finally:
        with contextlib.suppress(OSError):
            file.close()
