"""The head of an HTTP answer and what follows it, in one write.

Owns a transport that keeps a head back until the body comes or the loop has its turn, whichever is first. uvicorn
writes the two apart; a server that is killed in between leaves a head without its body, which some clients take for
an answer (boto3 does), and every client is woken twice. Must not know what is served.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

_HEAD = b"HTTP/1."
_LONG = 64 << 10
"""Bytes of a body that is written by itself."""


class WholeAnswers(asyncio.Transport):
    """Around a connection's transport, in whose place it is given to uvicorn's protocol."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner, self._loop = inner, loop
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As usual; a head waits for the next one, at most until the loop goes on."""
        if self._head:
            if len(data) > _LONG:  # comes in pieces anyway, and is not copied for that
                self._flush()
                self._inner.write(data)
                return
            head, self._head = self._head, b""
            self._inner.write(b"".join((head, data)))
        elif data[: len(_HEAD)] == _HEAD:
            self._head = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            self._inner.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As `write` of all of it."""
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._inner.is_closing():
            self._inner.write(head)

    def close(self) -> None:
        """When what was written is gone."""
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        """At once."""
        self._head = b""
        self._inner.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not with the kernel yet."""
        return len(self._head) + self._inner.get_write_buffer_size()

    # ── as the one inside ────────────────────────────────────────────────────────────────────────

    def can_write_eof(self) -> bool:
        """See `asyncio.WriteTransport`."""
        return self._inner.can_write_eof()

    def write_eof(self) -> None:
        """See `asyncio.WriteTransport`."""
        self._flush()
        self._inner.write_eof()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._inner.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See `asyncio.WriteTransport`."""
        return self._inner.get_write_buffer_limits()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._inner.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport`."""
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See `asyncio.BaseTransport`."""
        return self._inner.get_protocol()

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport`."""
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._inner.resume_reading()


__all__ = ["WholeAnswers"]
