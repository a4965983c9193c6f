"""A WebSocket: send, receive and settle over one connection, in JSON.

Owns the frames and what each asks for. Leases last as long as the connection. What a caller asks for is done while the
next is read, a bounded number at once, and answered with the ``ref`` that it gave. Must not know HTTP operations.
"""

import asyncio
import contextlib
from typing import Annotated, Any, Literal

import attrs
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from dropr_core.contracts.gateway import Desk, Held
from dropr_core.errors import DroprError
from dropr_gateway_http import batches, words
from dropr_gateway_http.callers import Caller
from dropr_gateway_http.exchange import Receive, Scope, Send
from dropr_gateway_http.problems import Trouble, lease_over, trouble_of
from dropr_gateway_http.service import Service, as_message

AT_ONCE = 256
"""Frames of one connection that are worked on at once."""

Ref = Annotated[str, Meta(max_length=200)] | int


class SendFrame(words.Item, tag_field="op", tag="send", kw_only=True):
    """Send one message; answered with `sent`."""

    channel: words.Channel
    ref: Ref | UnsetType = UNSET


class ReceiveFrame(Struct, tag_field="op", tag="receive", forbid_unknown_fields=True):
    """From now on give out messages of these channels, so many unsettled at once; in place of what was said before."""

    channels: Annotated[list[words.Channel], Meta(max_length=100)]
    window: Annotated[int, Meta(ge=1, le=words.MAX_COUNT)] = 10
    ref: Ref | UnsetType = UNSET


class SettleFrame(Struct, tag_field="op", tag="settle", forbid_unknown_fields=True):
    """Settle one lease; answered with `settled`."""

    handle: words.Handle
    action: Literal["ack", "release", "bury", "touch"] = "ack"
    delay: words.Seconds | UnsetType = UNSET
    reason: words.Reason = ""
    result: str | UnsetType = UNSET
    result_type: words.ContentType = "text/plain; charset=utf-8"
    ref: Ref | UnsetType = UNSET


_FRAMES: msgspec.json.Decoder[SendFrame | ReceiveFrame | SettleFrame] = msgspec.json.Decoder(
    SendFrame | ReceiveFrame | SettleFrame
)


@attrs.define
class _Socket:
    """One connection."""

    service: Service
    desk: Desk
    caller: Caller
    output: Send
    room: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(AT_ONCE))
    tasks: set[asyncio.Task[None]] = attrs.field(factory=set)
    giving: asyncio.Task[None] | None = None
    unsettled: int = 0
    freed: asyncio.Event = attrs.field(factory=asyncio.Event)
    mine: dict[str, Held] = attrs.field(factory=dict)

    async def say(self, event: str, ref: Any = UNSET, **facts: Any) -> None:
        """One frame out."""
        frame = {"event": event, **({} if ref is UNSET else {"ref": ref}), **facts}
        await self.output({"type": "websocket.send", "text": msgspec.json.encode(frame).decode()})

    async def refuse(self, trouble: Trouble, ref: Any = UNSET) -> None:
        """What went wrong."""
        await self.say("problem", ref, status=trouble.status, code=trouble.code, detail=trouble.detail)

    async def take(self, frame: SendFrame | ReceiveFrame | SettleFrame) -> None:
        """Do what a frame asks for."""
        try:
            if isinstance(frame, SendFrame):
                self.caller.check("send", frame.channel)
                (placed,) = await self.desk.put(batches.parcel(frame.channel, frame, "this frame"))
                await self.say("sent", frame.ref, id=placed.id, duplicate=placed.duplicate, local=placed.local)
            elif isinstance(frame, ReceiveFrame):
                for channel in frame.channels:
                    self.caller.check("receive", channel)
                await self.stop_giving()
                if frame.channels:
                    self.giving = asyncio.create_task(self.give(frame))
                await self.say("receiving", frame.ref, channels=frame.channels)
            else:
                await self.settle(frame)
        except Trouble as trouble:
            await self.refuse(trouble, frame.ref)
        except DroprError as error:
            await self.refuse(trouble_of(error), frame.ref)

    async def settle(self, frame: SettleFrame) -> None:
        """End a lease, or begin its time anew."""
        held = self.mine.get(frame.handle) or await self.desk.by_handle(frame.handle)
        if held is None:
            raise lease_over(frame.handle)
        self.caller.check("receive", held.channel)
        if frame.action == "touch":
            good = held.touch()
        elif frame.action == "ack":
            given = isinstance(frame.result, str)
            result = frame.result.encode() if isinstance(frame.result, str) else None
            good = await held.ack(result, frame.result_type if given else "")
        elif frame.action == "bury":
            good = await held.bury(frame.reason)
        else:
            good = await held.release(None if frame.delay is UNSET else frame.delay, reason=frame.reason)
        if frame.action != "touch":
            if self.mine.pop(frame.handle, None) is not None:
                self.unsettled -= 1
                self.freed.set()
            self.service.settled(frame.handle)
        await self.say("settled", frame.ref, handle=frame.handle, held=good)

    async def give(self, frame: ReceiveFrame) -> None:
        """Give out messages for ever."""
        loop = asyncio.get_running_loop()
        try:
            while not self.desk.stopping.is_set():
                self.freed.clear()
                free = frame.window - self.unsettled
                if free <= 0:
                    await self.freed.wait()
                    continue
                for held in await self.desk.reserve(frame.channels, limit=min(free, 100), wait=60.0):
                    self.mine[held.handle] = held
                    self.unsettled += 1
                    self.service.streamed[held.handle] = lambda handle=held.handle: self.other(handle)  # type: ignore[misc]
                    await self.say("message", message=as_message(held, loop.time()))
        except DroprError as error:
            await self.refuse(trouble_of(error), frame.ref)

    def other(self, handle: str) -> None:
        """A lease of this connection was settled by another request."""
        if self.mine.pop(handle, None) is not None:
            self.unsettled -= 1
            self.freed.set()

    async def stop_giving(self) -> None:
        """Give out nothing more; what is out stays out."""
        if self.giving is not None:
            self.giving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.giving
            self.giving = None

    def started(self, task: asyncio.Task[None]) -> None:
        """A frame is worked on."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _task: self.room.release())

    async def end(self) -> None:
        """Nobody is there any more."""
        await self.stop_giving()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for handle in self.mine:
            self.service.streamed.pop(handle, None)


async def serve(service: Service, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket until it ends."""
    await receive()
    await send({"type": "websocket.accept"})
    client = scope.get("client") or ("?", 0)
    async with service.desk.connection(f"{client[0]}:{client[1]}") as desk:
        socket = _Socket(service, desk, caller, send)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                try:
                    frame = _FRAMES.decode((message.get("bytes") or b"") if text is None else text)
                except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                    await socket.refuse(Trouble(400, "bad_frame", f"this frame is not understood: {error}"))
                    continue
                await socket.room.acquire()
                socket.started(asyncio.create_task(socket.take(frame)))
        finally:
            await socket.end()
