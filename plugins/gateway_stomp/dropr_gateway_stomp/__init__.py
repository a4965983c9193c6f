"""STOMP 1.0, 1.1 and 1.2 for the programs on this machine, over TCP, TLS, unix sockets and WebSockets.

Owns the plugin's surface: `Options`, the hook, the gateway. What a connection does is `connection.py`'s.
"""

import asyncio
import logging
from typing import ClassVar

from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import Desk, Gateway, Line
from dropr_core.hookspecs import hookimpl
from dropr_gateway_stomp.connection import Connection
from dropr_gateway_stomp.options import Options
from dropr_gateway_stomp.topics import Topics
from dropr_gateway_stomp.websocket import Bytes, WebSocketBytes

__all__ = ["Options", "StompGateway", "dropr_gateway"]


class _Begun:
    """A line of which something was read already."""

    def __init__(self, line: Bytes, begun: bytes) -> None:
        self._line, self._begun = line, begun
        self.write = line.write

    async def read(self, most: int = 65536) -> bytes:
        """See `Line`."""
        begun, self._begun = self._begun, b""
        return begun or await self._line.read(most)


class StompGateway(Gateway):
    """All connections of one node's gateway process."""

    default_listen: ClassVar[str] = "tcp://127.0.0.1:61613"

    def __init__(self, options: Options, log: logging.Logger) -> None:
        self._options, self._log = options, log
        self._topics = Topics()
        self.authenticates = bool(options.users)

    def _allowed(self, origin: str) -> bool:
        """Whether a web page may connect: with passcodes every page that knows one, else those that are named. Without
        this rule every page that somebody on this machine looks at could put messages.
        """
        return origin in self._options.origins or (self.authenticates and not self._options.origins)

    async def serve(self, line: Line, desk: Desk) -> None:
        """See the contract. A connection that begins as HTTP does is a WebSocket."""
        begun = b""
        try:
            async with asyncio.timeout(self._options.connect):
                while len(begun) < len(_HTTP) and _HTTP.startswith(begun):
                    data = await line.read()
                    if not data:
                        return
                    begun += data
        except TimeoutError:
            return
        if not begun.startswith(_HTTP):
            await self._connection(_Begun(line, begun), line, desk)
            return
        socket = WebSocketBytes(line, begun, self._allowed)
        await self._connection(socket, line, desk)
        await socket.close()

    async def _connection(self, source: Bytes, line: Line, desk: Desk) -> None:
        connection = Connection(
            source, desk, self._options, self._topics, self._log, peer=line.peer, stopping=line.stopping
        )
        await connection.run()


_HTTP = b"GET "


@hookimpl
def dropr_gateway(options: Options, context: Context) -> Gateway:
    """Make the gateway of one node."""
    return StompGateway(options, context.log)
