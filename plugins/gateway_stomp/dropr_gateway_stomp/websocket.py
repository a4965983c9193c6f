"""A WebSocket on a line: the bytes of STOMP in it, as if there were none.

Owns the handshake and what of the WebSocket protocol is answered here; wsproto knows the protocol and does no I/O. Must
not know STOMP, but for the names of its subprotocols.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

SUBPROTOCOLS = ("v12.stomp", "v11.stomp", "v10.stomp")


class Bytes(Protocol):
    """What carries the WebSocket, and what a session reads from; `Line` of the contract has more."""

    async def read(self, most: int = 65536) -> bytes:
        """At least one byte; ``b""`` at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """All of it."""
        ...


class WebSocketBytes:
    """The bytes inside of the messages of a WebSocket. For one reader; any number of writers, one after the other."""

    def __init__(self, line: Bytes, begun: bytes, allowed: Callable[[str], bool]) -> None:
        """``begun``: what was read of the line already; ``allowed``: whether a page of that origin may connect."""
        self._line, self._begun, self._allowed = line, begun, allowed
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._open = self._ended = False
        self._lock = asyncio.Lock()

    async def read(self, most: int = 65536) -> bytes:
        """See `Line`. Raises ConnectionError for what is no WebSocket that may connect; it was told so."""
        while not self._ended:
            data, self._begun = self._begun or await self._line.read(most), b""
            found, answers = bytearray(), list[Event]()
            refused = ""
            try:
                self._protocol.receive_data(data or None)
                for event in self._protocol.events():
                    refused = refused or self._take(event, found, answers)
            except (RemoteProtocolError, LocalProtocolError) as error:
                self._ended = True
                hint = getattr(error, "event_hint", None)
                answers = [] if hint is None else [hint]
                refused = str(error)
            for answer in answers:
                try:
                    out = self._protocol.send(answer)
                except LocalProtocolError:  # nothing can be said any more
                    break
                async with self._lock:
                    await self._line.write(out)
            if refused:
                raise ConnectionError(f"no WebSocket for us: {refused}")
            if not data:
                self._ended = True
            if found:
                return bytes(found)
        return b""

    def _take(self, event: Event, found: bytearray, answers: list[Event]) -> str:
        """One event; returns why the connection is refused."""
        match event:
            case Request():
                headers = {name.lower(): value for name, value in event.extra_headers}
                origin = headers.get(b"origin", b"").decode("latin-1")
                if origin and not self._allowed(origin):
                    self._ended = True
                    answers.append(RejectConnection(status_code=403))
                    return f"pages of {origin[:100]} may not connect (option 'origins')"
                chosen = next((one for one in SUBPROTOCOLS if one in event.subprotocols), None)
                answers.append(AcceptConnection(subprotocol=chosen))
                self._open = True
            case TextMessage():
                found += event.data.encode()
            case BytesMessage():
                found += event.data
            case Ping():
                answers.append(event.response())
            case CloseConnection():
                self._ended = True
                answers.append(event.response())
        return ""

    async def write(self, data: bytes) -> None:
        """See `Line`. One message; as text where it is some, which is what clients in browsers expect."""
        if not self._open:
            return
        try:
            event: Event = TextMessage(data.decode())
        except UnicodeDecodeError:
            event = BytesMessage(data)
        async with self._lock:
            try:
                out = self._protocol.send(event)
            except LocalProtocolError:
                raise ConnectionResetError("the other side has closed the WebSocket") from None
            await self._line.write(out)

    async def close(self) -> None:
        """Say good-bye, if it still can be heard."""
        if self._open and not self._ended:
            self._ended = True
            async with self._lock:
                try:
                    await self._line.write(self._protocol.send(CloseConnection(code=1000)))
                except (LocalProtocolError, OSError):
                    pass
