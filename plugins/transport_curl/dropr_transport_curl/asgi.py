"""The answering side as an ASGI application: HTTP in, the host's answerer, HTTP out.

Owns how requests are read within limits and how refusals look in HTTP. Runs under our own listener
or mounted into anybody's web application; must not know which server runs it, nor what a request means.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import Any

from dropr_core.contracts.transport import Answerer, Caller
from dropr_core.errors import Refused
from dropr_core.system.request_room import ROOM, RequestRoom
from dropr_transport_curl.filling import EXTENSION, Buffers, Gone
from dropr_transport_curl.incoming import Incoming, Pace, Receive, Slow, set_end
from dropr_transport_curl.verdict import CODE_HEADER, CONTENT_TYPE, printable

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ADMITTED = "dropr.admitted"
"""Name of the ASGI extension: ``extension()`` says that the request was admitted; False: there is no place for it."""

REFUSED = "dropr.refused"
"""Name of the ASGI extension: ``extension()`` says that the request is refused; seconds until the caller is told."""

_STATUS = {
    "unknown_peer": 401,
    "bad_signature": 401,
    "bad_invitation": 401,
    "too_big": 413,
    "bad_frame": 400,
    "busy": 503,
}
_ANSWER = (b"content-type", CONTENT_TYPE.encode())
_LINGER, _LINGER_BYTES = 2.0, 4 << 20
_LONG = 128 << 10
"""Bytes that are read straight into a buffer, where the server can."""
_PIECE = 256 << 10
"""Bytes of an answer that are handed to the server at once: what its caller has not read yet stays here, and counts."""
UNSENT = "dropr.unsent"
"""Name of the ASGI extension: ``extension()`` says how many bytes the server holds that the caller has not taken."""
ABORT = "dropr.abort"
"""Name of the ASGI extension: ``extension()`` hangs up at once."""
WHOLE = "dropr.whole"
"""Name of the ASGI extension that is there when the server has all of the request: nothing of it is waited for."""
BEGUN = "dropr.begun"
"""Name of the ASGI extension that holds the answer to come, where `begin` has asked for it already."""
_WATCH_AFTER = 1.0
"""Seconds of waiting for an answer after which we look whether the caller is still there."""


def _later(seconds: float, do: Callable[[], None]) -> Callable[[], None]:
    return asyncio.get_running_loop().call_later(seconds, do).cancel


def _always() -> bool:
    """Where the server counts connections by itself."""
    return True


def _at_once() -> float:
    """Where the server knows no strangers."""
    return 0.0


def _caller_of(scope: Scope) -> Caller:
    client = scope.get("client")
    return Caller(f"{client[0]}:{client[1]}" if client else "unknown")


def _check_length(request: bytes, length: int) -> None:
    if len(request) != length:
        raise Refused("bad_frame", f"{len(request)} bytes, and the request says {length}")


class DroprApp:
    """An ASGI 3 application that passes POSTs at ``path`` and below it to ``answerer``."""

    def __init__(
        self,
        answerer: Answerer,
        path: str = "",
        *,
        log: logging.Logger | None = None,
        idle: float = 30.0,
        min_rate: float = 100.0,
        window: float = 30.0,
        room: int = ROOM,
    ) -> None:
        """``idle``: seconds a caller may send nothing; ``min_rate``: bytes a second over ``window`` seconds; ``room``:
        bytes of long requests that are held at once.
        """
        self._answerer = answerer
        self._path = "/" + path.strip("/") if path.strip("/") else ""
        self._log = log or logging.getLogger("dropr.transport.curl")
        self._idle, self._min_rate, self._window = idle, min_rate, window
        self._waiting: set[asyncio.Future[None]] = set()
        self._buffers = Buffers()
        self._room = RequestRoom(room, _later)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

    def give_up(self) -> None:
        """Stop waiting for answers: their callers get a 500 (unknown to them). In the event loop's thread."""
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_exception(ConnectionAbortedError("the node is shutting down; try again later"))

    def begin(self, scope: Scope, body: bytearray) -> bool:
        """Ask for the answer to a short request now, and not when its task has its turn, which then finds it; whether
        that was done. The request is here as a whole, and its caller was admitted before.
        """
        if len(body) >= _LONG or scope["method"] != "POST" or not self._is_ours(scope["path"]):
            return False
        request = bytes(body)
        caller = _caller_of(scope)
        try:
            length = self._answerer.admit(request[: self._answerer.head_size], caller)
            _check_length(request, length)
            future = self._answerer.answer(request, caller)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        scope["extensions"][BEGUN] = future
        return True

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    def _is_ours(self, path: str) -> bool:
        return not self._path or path == self._path or path.startswith(self._path + "/")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_ours(scope["path"]):
            await self._tell(scope, send, 404, "no dropr node at this path")
            return
        if scope["method"] != "POST":
            text = "dropr: this is a node's address; nodes POST here"
            await self._tell(scope, send, 405, text, ((b"allow", b"POST"),))
            return
        caller, incoming = _caller_of(scope), Incoming(receive)
        try:
            extensions = scope.get("extensions", {})
            future = extensions.pop(BEGUN) if BEGUN in extensions else None
            if future is None:
                request = await self._read(scope, incoming, caller)
                future = self._answerer.answer(request, caller)
                del request  # it may be megabytes, and the answer may take a minute
            else:
                incoming.more = False
            if not future.done():
                await self._wait(future, receive)
            answer = future.result()
        except Refused as refused:
            code = refused.code if refused.code.isascii() and refused.code.isprintable() else "refused"
            more = ((CODE_HEADER.encode(), code.encode()),)
            await self._tell(
                scope, send, _STATUS.get(code, 403), refused.reason, more, receive if incoming.more else None
            )
        except Slow:
            await self._tell(scope, send, 408, "the request came too slowly", (), receive)
        except ConnectionAbortedError as error:
            await self._tell(scope, send, 500, str(error))
        except Gone:
            return
        except Exception:
            self._log.exception("a request of %s met an internal error", caller.address)
            await self._tell(scope, send, 500, "internal error", (), receive if incoming.more else None)
        else:
            incoming.leave()  # while its answer is read, who knows how slowly, the request is gone
            head = [_ANSWER, (b"content-length", b"%d" % len(answer))]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await self._give(scope, send, answer)
            del answer, future  # the host counts an answer for as long as anybody has it
        finally:
            incoming.leave()

    async def _read(self, scope: Scope, incoming: Incoming, caller: Caller) -> bytes | memoryview:
        """The whole request, admitted by its head before more than that is kept; a long one takes its place."""
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        extensions = scope.get("extensions", {})
        if WHOLE in extensions and announced is not None and announced.isdigit() and int(announced) < _LONG:
            return await self._read_at_once(scope, incoming, caller, announced)
        fill = extensions.get(EXTENSION)
        chunks: list[bytes] = []
        have, length = 0, -1
        try:
            async with asyncio.timeout(self._idle) as limit:
                pace = Pace(incoming, limit, self._idle, self._min_rate, self._window)
                while incoming.more:
                    chunk = await incoming.next()
                    if chunk:
                        chunks.append(chunk)
                        have += len(chunk)
                    if length < 0 and (have >= self._answerer.head_size or not incoming.more):
                        head = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                        length = await self._admit(head, scope, incoming, caller, announced, limit)
                        if length >= _LONG:
                            await self._place(length, incoming, caller, limit)
                            incoming.came(have - len(chunk))
                    if length >= 0 and have > length:
                        raise Refused("bad_frame", f"more than the {length} bytes that the request says")
                    pace.moved(len(chunk))
                    if pace.slow:
                        raise Slow
                    if incoming.more and fill is not None and length - have >= _LONG:
                        request = self._buffers.take(length)
                        request[:have] = b"".join(chunks)
                        await fill(request[have:], pace.moved)
                        incoming.more = False
                        incoming.complete()
                        return request
        except TimeoutError:
            raise incoming.lost or Slow from None
        if have != length:
            raise Refused("bad_frame", f"only {have} of the {length} bytes that the request says")
        incoming.complete()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_at_once(self, scope: Scope, incoming: Incoming, caller: Caller, announced: bytes) -> bytes:
        """A short request that is here already, as nearly all are: so no clock is set for it."""
        request = await incoming.next()
        length = await self._admit(request, scope, incoming, caller, announced, None)
        _check_length(request, length)
        return request

    async def _place(self, length: int, incoming: Incoming, caller: Caller, limit: asyncio.Timeout) -> None:
        """Room for a long request. Raises Refused where there is none for long."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def granted() -> None:
            if not turn.done():
                turn.set_result(None)

        def refused(error: Refused) -> None:
            if not turn.done():
                turn.set_exception(error)
            else:  # it came in too slowly, beside too many others
                incoming.lost = error
                set_end(limit, loop.time())

        limit.reschedule(None)
        incoming.takes(self._room.place(caller.address.rpartition(":")[0], length, granted, refused))
        await turn
        limit.reschedule(loop.time() + self._idle)

    async def _admit(
        self, begin: bytes, scope: Scope, incoming: Incoming, caller: Caller, announced: bytes | None,
        limit: asyncio.Timeout | None,
    ) -> int:  # fmt: skip
        """Judge a request; a refusal is told to a stranger after a while, so that a flood of them has to wait."""
        extensions = scope.get("extensions", {})
        try:
            length = self._answerer.admit(begin[: self._answerer.head_size], caller)
        except Refused:
            seconds = extensions.get(REFUSED, _at_once)()
            if seconds:
                if limit is not None:
                    limit.reschedule(None)
                await incoming.pause(seconds)
            raise
        if announced is not None and announced.isdigit() and int(announced) != length:
            raise Refused("bad_frame", f"the request says {length} bytes, HTTP says {int(announced)}")
        if not extensions.get(ADMITTED, _always)():
            raise Refused("busy", "too many connections at once; try again later")
        return length

    async def _wait(self, future: "Future[bytes]", receive: Receive) -> None:
        """Until the answer is there; raises Gone if the caller leaves, ConnectionAbortedError on `give_up`.

        The host's future is never cancelled: it may be shared, and it belongs to the host.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake(_future: object) -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:  # the listener has closed meanwhile
                pass

        watchers: list[asyncio.Task[None]] = []

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not waiter.done():
                waiter.set_exception(Gone())

        # Most answers come at once; only long polls pay for a look at the caller.
        timer = loop.call_later(_WATCH_AFTER, lambda: watchers.append(loop.create_task(watch())))
        self._waiting.add(waiter)
        try:
            future.add_done_callback(wake)
            await waiter
        finally:
            self._waiting.discard(waiter)
            timer.cancel()
            for task in watchers:
                task.cancel()

    async def _give(self, scope: Scope, send: Send, answer: bytes) -> None:
        """The answer's body, as fast as its caller reads. One who reads nothing for long is cut off."""
        extensions = scope.get("extensions", {})
        unsent, abort = extensions.get(UNSENT), extensions.get(ABORT)
        begin = 0
        while len(answer) - begin > _PIECE:
            piece = {"type": "http.response.body", "body": answer[begin : begin + _PIECE], "more_body": True}
            begin += _PIECE
            if unsent is None or abort is None:
                await send(piece)
                continue
            sending, left = asyncio.ensure_future(send(piece)), unsent()
            try:
                while not (await asyncio.wait([sending], timeout=self._idle))[0]:
                    if unsent() >= left > 0:
                        abort()
                        return
                    left = unsent()
            finally:
                sending.cancel()
            sending.result()
        await send({"type": "http.response.body", "body": answer[begin:]})

    async def _tell(
        self,
        scope: Scope,
        send: Send,
        status: int,
        text: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        unread: Receive | None = None,
    ) -> None:
        """A short answer in plain text. ``unread``: the request's body was not read, and will not be."""
        body = printable(text, 1000).encode() + b"\n"
        head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), *headers]
        if unread and scope.get("http_version", "1.1").startswith("1"):
            head.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
        if unread is None:
            return
        # Closing with unread bytes in the socket would reset the connection, and the caller might never see
        # why. So throw away the little that is on its way until the caller hangs up.
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER):
                while left > 0:
                    message = await unread()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})
