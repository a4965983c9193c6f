"""Where the bytes of a body come from: bytes, a path, or an open binary file.

Owns reading them piece by piece, and the errors that name what could not be read. Must not know where they go.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from dropr_core.errors import UsageError, passes
from dropr_core.system.os_errors import store_error

Body = bytes | Path | BinaryIO


class Rejoined:
    """A stream of which the beginning was read already."""

    def __init__(self, begin: bytes, rest: BinaryIO) -> None:
        self._begin, self._rest = begin, rest

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        if self._begin:
            piece, self._begin = self._begin[:size], self._begin[size:]
            # Filled up, so that what follows is read from a round offset, and written at one: that is twice as fast.
            return piece + _bytes_of(self._rest.read(size - len(piece))) if len(piece) < size else piece
        return _bytes_of(self._rest.read(size))


def opened(body: Body, stack: contextlib.ExitStack) -> tuple[BinaryIO, int | None]:
    """A body as a stream, and its size if that is known; ``stack`` closes what was opened. Raises UsageError
    (a file that cannot be read), StoreError (no room for one more descriptor …).
    """
    if isinstance(body, bytes):
        return io.BytesIO(body), len(body)
    if not isinstance(body, Path):
        return body, None
    try:
        file = stack.enter_context(body.open("rb"))
        return file, os.fstat(file.fileno()).st_size
    except OSError as error:
        if passes(error):
            raise store_error(error, body) from error
        raise UsageError(f"{body}: {error.strerror or error}") from None


def read_up_to(source: BinaryIO, count: int) -> bytes:
    """The first ``count`` bytes of a stream, fewer if it ends before. Raises UsageError for a stream of text."""
    begin = b""
    while len(begin) < count and (piece := _bytes_of(source.read(count - len(begin)))):
        begin += piece
    return begin


def _bytes_of(piece: object) -> bytes:
    if not isinstance(piece, bytes):
        raise UsageError(f"a stream that gives {type(piece).__name__}, not bytes: open the file with mode 'rb'")
    return piece
