"""A gateway at work within a test: its loop in a thread, a node in memory beneath it, raw sockets towards it.

Owns `GatewayHost` (start, stop, restart, what its store does) and `Caller` (a client that knows no dialect). Must not
know any dialect.
"""

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.config.schema import GatewayConfig
from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import STREAMS, Gateway
from dropr_core.gateway.door import Door
from dropr_core.gateway.hub import Hub
from dropr_core.testing.contract import PATIENCE

CONNECTIONS = 20_000
_ABRUPT = struct.pack("ii", 1, 0)


class GatewayHost:
    """One gateway on one node, whose store outlives the gateway."""

    def __init__(self, directory: Path, make: Callable[[Context], Gateway]) -> None:
        self._make = make
        config = from_mapping({"node": "kit", "storage": "memory", "limits": {"min_free": 0}}, directory)
        self.faults = _Faults()
        """What the host logged of faults in the gateway."""
        self.log = logging.Logger("dropr.kit.gateway")  # noqa: LOG001 - its own, heard by nobody else
        self.log.addHandler(self.faults)
        self.runtime = Runtime.open(config, log=self.log)
        self.before_put: Callable[[], None] = _nothing
        """Called in the store's thread before anything is put; what it raises, the put raises."""
        inbox: Any = self.runtime.storage.inbox
        for name in ("put", "put_all"):
            if hasattr(inbox, name):
                setattr(inbox, name, self._guarded(getattr(inbox, name)))
        self.start()

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any) -> Any:
            self.before_put()
            return call(*arguments)

        return guarded

    # ── its life ─────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Open the door."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dropr-kit-gateway", daemon=True)
        self._thread.start()
        self.url = self._do(self._open())

    async def _open(self) -> str:
        gateway = self._make(self.runtime.context(self.log))
        scheme = "tcp" if set(gateway.schemes) & set(STREAMS) else "http"
        config = GatewayConfig(name="kit", listen=(f"{scheme}://127.0.0.1:0",), max_connections=CONNECTIONS)
        self._hub = Hub(self.runtime, asyncio.get_running_loop(), self.log, 1 << 30)
        self._door = Door(self._hub, config, gateway, Path(), self.log)
        await self._door.open()
        return self._door.urls[0]

    def stop(self, patience: float = PATIENCE) -> None:
        """Drain and end; with no patience everything is cut off at once. Safe twice."""
        if self._loop.is_closed():
            return
        try:
            self._do(self._close(patience))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "the gateway blocks its event loop: a call in it does not come back"
            self._loop.close()

    async def _close(self, patience: float) -> None:
        self._door.stop_listening()
        self._hub.stop()
        await self._door.drain(patience)
        await self._door.close()
        await self._hub.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def restart(self) -> None:
        """End in the middle of everything, and begin again on the same store."""
        self.stop(0.0)
        self.start()

    def close(self) -> None:
        """Stop, and close the store."""
        try:
            self.stop(0.0)
        finally:
            self.runtime.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE)

    # ── towards it ───────────────────────────────────────────────────────────────────────────────

    def caller(self) -> "Caller":
        """A new connection."""
        return Caller(self.url)

    def counts(self, channel: str) -> dict[str, int]:
        """How many messages of a channel the store has, by their state."""
        return dict(self.runtime.inbox.counts().get(channel, {}))

    def waiting(self, channel: str) -> int:
        """How many messages of a channel wait for a consumer, or are with one."""
        found = self.counts(channel)
        return sum(found.get(state, 0) for state in ("ready", "delayed", "blocked", "leased"))


class Caller:
    """A connection: bytes out, bytes in. It remembers everything that it was answered."""

    def __init__(self, url: str, receive_buffer: int = 0, patience: float = PATIENCE) -> None:
        parts = urlsplit(url)
        self.answer = b""
        self.ended = False
        self.patience = patience
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect((parts.hostname, parts.port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self._socket.close()
            raise

    def say(self, data: bytes) -> None:
        """Send; nothing happens if the other side has closed."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def hear(self, enough: Callable[[bytes], Any], what: str) -> Any:
        """Read until ``enough`` of all that was answered is true; AssertionError if it does not come."""
        patience = self.patience
        until = time.monotonic() + patience
        while not (found := enough(self.answer)):
            if self.ended:
                raise AssertionError(f"the connection ended before {what}; answered was {_excerpt(self.answer)}")
            if time.monotonic() > until:
                raise AssertionError(f"{what} did not come within {patience:g} s; answered was {_excerpt(self.answer)}")
            self.listen(min(1.0, patience))
        return found

    def listen(self, seconds: float) -> None:
        """Read what comes within so many seconds, once."""
        self._socket.settimeout(max(0.001, seconds))
        try:
            piece = self._socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionError:
            piece = b""
        finally:
            self._socket.settimeout(PATIENCE)
        self.ended = not piece
        self.answer += piece

    def die(self) -> None:
        """End without a word more than the system itself says."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
        self._socket.close()

    def close(self) -> None:
        """End; safe twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Faults(logging.Handler):
    """Keeps the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.cut_off = 0
        """Connections that did not end when the gateway drained."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        self.cut_off += "was cut off, for the gateway ends" in record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


def _nothing() -> None:
    """Nothing stands in the way."""


def _excerpt(data: bytes) -> str:
    return repr(data) if len(data) <= 300 else f"{data[:100]!r} … {data[-200:]!r} ({len(data)} bytes)"


__all__ = ["Caller", "GatewayHost"]
