"""One request and its answer, on ASGI.

Owns reading a body within limits (never more in memory than asked for), noticing that the caller has left, and writing
an answer, whole or piece by piece. Must not know operations or the desk.
"""

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, BinaryIO, TypeVar

import attrs
import msgspec

from dropr_gateway_http.callers import Caller
from dropr_gateway_http.problems import MEDIA, Trouble

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

PIECE = 256 << 10
_LINGER, _LINGER_BYTES = 2.0, 4 << 20
JSON = "application/json"


class Gone(Exception):
    """The caller has left: nobody waits for an answer."""


@attrs.define
class Call:
    """One request."""

    scope: Scope
    receive: Receive
    caller: Caller
    headers: Mapping[str, str]
    """Names in small letters."""
    path: Mapping[str, str]
    query: Any
    more: bool = True
    """Whether any of the body may still come."""

    async def piece(self) -> bytes:
        """The next piece of the body. Raises Gone."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Gone
        self.more = message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def begin(self, most: int) -> bytes:
        """The body up to a little more than ``most`` bytes: its end if `more` is False then. Raises Gone."""
        pieces, have = list[bytes](), 0
        while self.more and have <= most:
            pieces.append(await self.piece())
            have += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def whole(self, most: int) -> bytes:
        """All of it, at most ``most`` bytes. Raises Trouble, Gone."""
        self.announced(most)
        body = await self.begin(most)
        if self.more or len(body) > most:
            raise too_long(most)
        return body

    def announced(self, most: int) -> int | None:
        """The length that the request announces; None: it comes in chunks. Raises Trouble if it is too long."""
        text = self.headers.get("content-length")
        length = int(text) if text is not None and text.isdigit() and len(text) < 20 else None
        if length is not None and length > most:
            raise too_long(most)
        return length

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what may take long; given up (cancelled) as soon as the caller leaves. Raises Gone."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Gone
        finally:
            watch.cancel()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _left(self) -> None:
        with contextlib.suppress(Gone):
            while True:
                if self.more:
                    await self.piece()  # whatever a GET carries means nothing
                elif (await self.receive())["type"] == "http.disconnect":
                    return


def too_long(most: int) -> Trouble:
    """A body that is over its limit."""
    return Trouble(
        413, "too_big", f"this request may have at most {most:,} bytes; nothing was stored. Send less at once"
    )


@attrs.define
class Answer:
    """What is answered: a body in memory, or one that is read from a file."""

    status: int = 200
    body: bytes = b""
    media: str | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    file: BinaryIO | None = None
    """Instead of ``body``; closed when it was written."""
    size: int = 0
    """Of the file."""
    stream: Callable[[Call, Send], Awaitable[None]] | None = None
    """Instead of both: writes the pieces of the body by itself, in chunks."""
    close: bool = False


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    return Answer(status, msgspec.json.encode(value), JSON, headers or {})


def of_trouble(trouble: Trouble) -> Answer:
    """An answer that refuses."""
    return Answer(trouble.status, trouble.body(), MEDIA, dict(trouble.more))


_ALWAYS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
]
"""What comes out of a queue is no page of this place, whatever it says it is."""


async def write(answer: Answer, call: Call, send: Send) -> None:
    """Write an answer. If the request's body was not read the connection closes after it."""
    head = [*_ALWAYS, *((name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items())]
    if answer.media is not None:
        head.append((b"content-type", answer.media.encode("latin-1")))
    unread = call.more and (call.headers.get("content-length", "0") != "0" or "transfer-encoding" in call.headers)
    if unread or answer.close:
        head.append((b"connection", b"close"))
    if answer.stream is None and answer.status != 204:
        size = answer.size if answer.file is not None else len(answer.body)
        head.append((b"content-length", b"%d" % size))
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    if answer.stream is not None:
        await answer.stream(call, send)
        await send({"type": "http.response.body", "body": b""})
        return
    if answer.file is not None:
        await _write_file(answer.file, send)
        return
    await send({"type": "http.response.body", "body": answer.body, "more_body": unread})
    if unread:
        await _linger(call)
        await send({"type": "http.response.body", "body": b""})


async def _write_file(file: BinaryIO, send: Send) -> None:
    """Piece by piece: the next one is read when the caller has taken the one before."""
    loop = asyncio.get_running_loop()
    try:
        while piece := await loop.run_in_executor(None, functools.partial(file.read, PIECE)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        file.close()


async def _linger(call: Call) -> None:
    """Closing with unread bytes in the socket would reset the connection, and the caller might never see why: throw
    away the little that is on its way.
    """
    left = _LINGER_BYTES
    with contextlib.suppress(TimeoutError, Gone):
        async with asyncio.timeout(_LINGER):
            while call.more and left > 0:
                left -= len(await call.piece())


def ascii_json(value: Mapping[str, str]) -> str:
    """JSON that can stand in a header."""
    return json.dumps(dict(value), separators=(",", ":"))
