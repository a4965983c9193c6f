"""Server-sent events: messages as they become ready, over one answer that does not end.

Owns the stream and its window: so many messages are in the caller's hands at once, and each that it settles (by its
handle, with another request) makes room for the next. Leases last as long as the stream. Must not know WebSockets.
"""

import asyncio
import contextlib
from collections.abc import Awaitable

import msgspec

from dropr_gateway_http import words
from dropr_gateway_http.exchange import Answer, Call, Gone, Send
from dropr_gateway_http.operation import BYTES, Gives, Operation
from dropr_gateway_http.service import Service, as_message

ALIVE = 25.0
"""Seconds after which a stream on which nothing happens says that it lives: proxies close silent connections."""


class Streaming:
    """The operation."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def stream(self, call: Call) -> Answer:
        """Begin a stream."""
        call.caller.check("receive", call.path["channel"])
        return Answer(media="text/event-stream", stream=self._write, close=True)

    async def _write(self, call: Call, send: Send) -> None:
        writing = self._messages(call, send)
        with contextlib.suppress(Gone):
            await call.unless_gone(writing)

    async def _messages(self, call: Call, send: Send) -> None:
        channel, window = call.path["channel"], call.query.window
        service, loop = self._service, asyncio.get_running_loop()
        room, mine = asyncio.Semaphore(window), set[str]()
        client = call.scope.get("client") or ("?", 0)
        await send({"type": "http.response.body", "body": b": dropr\n\n", "more_body": True})
        async with service.desk.connection(f"{client[0]}:{client[1]}") as desk:
            try:
                while not desk.stopping.is_set():
                    if not await _within(room.acquire(), ALIVE):
                        await send({"type": "http.response.body", "body": b": alive\n\n", "more_body": True})
                        continue
                    held = await desk.reserve([channel], wait=ALIVE)
                    if not held:
                        room.release()
                        await send({"type": "http.response.body", "body": b": alive\n\n", "more_body": True})
                        continue
                    (one,) = held
                    service.streamed[one.handle] = room.release
                    mine.add(one.handle)
                    mine.intersection_update(service.streamed)
                    data = msgspec.json.encode(as_message(one, loop.time()))
                    event = b"event: message\nid: %s\ndata: %s\n\n" % (one.id.encode(), data)
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            finally:
                for handle in mine:
                    service.streamed.pop(handle, None)

    def operations(self) -> list[Operation]:
        """What is offered."""
        return [
            Operation(
                name="stream", method="GET", path="/channels/{channel}/stream", handle=self.stream, right="receive",
                says="Messages as server-sent events",
                more="Each event is a Message in JSON. Settle it by its handle; leases end with the stream.",
                query=words.StreamQuery, gives={200: Gives("The stream.", {"text/event-stream": BYTES})}, endless=True,
            )
        ]  # fmt: skip


async def _within(work: Awaitable[object], seconds: float) -> bool:
    """Whether it was done in time."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
