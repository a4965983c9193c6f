"""The contract of a gateway: a door on this machine for programs that speak a foreign dialect.

Owns `Gateway` and `Line`, and every name of the contract: the verbs stand in `desk.py`, their values in `parcels.py`.
All of it runs in one event loop, and nothing blocks it. A gateway must not know where messages go: that is the
topology's business; it parses and answers, as a rule with a protocol of its own that does no I/O.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from dropr_core.contracts.desk import Change, Desk, Held
from dropr_core.contracts.parcels import Counts, Fate, Parcel, Placed, Seen, Upload

if TYPE_CHECKING:
    import asyncio  # who only wants the names loads no event loop

STREAMS = ("tcp", "tls", "unix")
"""Schemes of which each connection is given to `Gateway.serve`."""
WEB = ("http", "https")
"""Schemes at which `Gateway.application` is mounted; WebSockets too."""

ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


class Gateway:
    """One dialect. Made once by the hook ``dropr_gateway(options, context)``; serves many connections.

    Making one opens nothing and asks nobody: `dropr check` does it too.
    """

    default_listen: ClassVar[str] = ""
    """Where it listens if the YAML does not say, such as ``tcp://127.0.0.1:11300``."""
    schemes: ClassVar[Sequence[str]] = STREAMS
    """Of STREAMS and WEB: what `serve` (the former) and `application` (the latter) are there for."""
    large: ClassVar[bool] = False
    """Whether it gives and takes large bodies without having them in memory, by `Desk.upload` and `Held.open`. Else
    they are read for it, up to ``max_bytes``.
    """
    authenticates: bool = False
    """Whether, with the options given, every caller must prove who it is. Else it listens on loopback only."""

    async def serve(self, line: "Line", desk: Desk) -> None:
        """One connection, from its beginning to its end; returning closes it, and with it the desk: leases that are
        still held end at once (their attempts count, unless the gateway drains).

        ConnectionError (raised by `line`) and DroprErrors may pass through: they end this connection alone.
        """
        raise NotImplementedError(f"{type(self).__name__} serves no streams")

    def application(self, desk: Desk) -> ASGIApplication:
        """What answers at http:// and https://. The desk is that of the whole process; `Desk.connection` makes one
        for a WebSocket. Called in the event loop.
        """
        raise NotImplementedError(f"{type(self).__name__} serves no web")

    async def close(self) -> None:
        """All connections are gone, and no more will come. Safe twice."""


class WebGateway(Gateway):
    """A gateway that only answers HTTP."""

    schemes = WEB


class Line(Protocol):
    """One connection. Its limits (bytes that wait to be written, time for a slow reader) are the host's."""

    peer: str
    """Who is at the other end, for the log."""
    secure: bool
    """Whether others on the way cannot read along (tls, unix, loopback)."""
    stopping: "asyncio.Event"
    """Set when the gateway drains: finish what is begun, take nothing new, return. Cut off after the drain time."""

    async def read(self, most: int = 65536) -> bytes:
        """What has arrived, at least one byte; ``b""`` at its end. Cancelling it loses nothing."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the reader is slow. Raises ConnectionError when it is gone or was too slow for too long."""
        ...

    def send(self, data: bytes) -> bool:
        """Send without waiting. False, and nothing was sent: the reader is slow or gone, and `write` says which."""
        ...

    def hear(self, take: Callable[[bytes], bool]) -> None:
        """From now on, whenever `read` waits and something arrives, it is given to ``take`` in the event loop first:
        for dialects with commands so short that to wake a task would cost more than they do (`Desk.put_soon`). What it
        returns False for is read as ever; it must not raise anything.
        """
        ...


__all__ = ["STREAMS", "WEB", "ASGIApplication", "Change", "Counts", "Desk", "Fate", "Gateway", "Held", "Line", "Parcel",
           "Placed", "Seen", "Upload", "WebGateway"]  # fmt: skip
