"""Leases, by their handles: acknowledge, release, bury, touch, and the body of a large message.

Owns the operations on them. Must not know how messages were received.
"""

from msgspec import UNSET

from dropr_core.contracts.gateway import Change, Held
from dropr_core.model.limits import MAX_RESULT
from dropr_gateway_http import words
from dropr_gateway_http.exchange import JSON, Answer, Call, as_json
from dropr_gateway_http.operation import BYTES, Gives, Operation
from dropr_gateway_http.problems import lease_over
from dropr_gateway_http.reading import decode
from dropr_gateway_http.service import Service, body_answer

MAX_JSON = 1 << 20


class Leases:
    """The operations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def _held(self, call: Call) -> Held:
        handle = call.path["handle"]
        held = await self._service.desk.by_handle(handle)
        if held is None:
            raise lease_over(handle)
        call.caller.check("receive", held.channel)
        return held

    def _ended(self, call: Call, good: bool) -> Answer:
        handle = call.path["handle"]
        self._service.settled(handle)
        if not good:
            raise lease_over(handle)
        return Answer(204)

    async def ack(self, call: Call) -> Answer:
        """Done; a body is the result."""
        held = await self._held(call)
        result = await call.whole(MAX_RESULT)
        media = call.headers.get("content-type", "application/octet-stream") if result else ""
        return self._ended(call, await held.ack(result or None, media))

    async def release(self, call: Call) -> Answer:
        """Back to the queue."""
        held = await self._held(call)
        said = decode(await call.whole(MAX_JSON), words.Release)
        delay = None if said.delay is UNSET else said.delay
        if not said.counted and delay is None:
            delay = 0.0
        return self._ended(call, await held.release(delay, counted=said.counted, reason=said.reason))

    async def bury(self, call: Call) -> Answer:
        """Into the dead letters."""
        held = await self._held(call)
        said = decode(await call.whole(MAX_JSON), words.Bury)
        return self._ended(call, await held.bury(said.reason))

    async def touch(self, call: Call) -> Answer:
        """Begin its time anew."""
        held = await self._held(call)
        said = decode(await call.whole(MAX_JSON), words.Touch)
        hold = None if said.hold is UNSET else min(said.hold, self._service.options.max_hold)
        if not held.touch(hold):
            raise lease_over(call.path["handle"])
        return Answer(204)

    async def settle(self, call: Call) -> Answer:
        """Many in one commit."""
        said = decode(await call.whole(MAX_JSON), words.Settles)
        found = [await self._service.desk.by_handle(one.handle) for one in said]
        changes: dict[int, Change] = {}
        for at, (one, held) in enumerate(zip(said, found, strict=True)):
            if held is not None:
                call.caller.check("receive", held.channel)
                changes[at] = _change(one, held)
        done = dict(zip(changes, await self._service.desk.settle(*changes.values()), strict=True)) if changes else {}
        for one in said:
            self._service.settled(one.handle)
        return as_json(words.Settled([done.get(at, False) for at in range(len(said))]))

    async def body(self, call: Call) -> Answer:
        """The body, streamed."""
        held = await self._held(call)
        return body_answer(held, {"Dropr-Id": held.id}, held.content_type)

    def operations(self) -> list[Operation]:
        """What is offered."""
        over = {404: "The lease is over, or never was. Nothing was changed."}
        done = {204: Gives("Done, durably.")}
        return [
            Operation(
                name="ack", method="POST", path="/leases/{handle}/ack", handle=self.ack, right="receive",
                says="Acknowledge: the message is done",
                more="What is in the body (up to 64 KiB) goes home to the sender with the receipt, as its result.",
                takes={"*/*": BYTES}, gives=done, also=over,
            ),
            Operation(
                name="release", method="POST", path="/leases/{handle}/release", handle=self.release, right="receive",
                says="Give a message back to the queue",
                takes={JSON: words.Release}, gives=done, also=over,
            ),
            Operation(
                name="bury", method="POST", path="/leases/{handle}/bury", handle=self.bury, right="receive",
                says="Put a message into the dead letters",
                takes={JSON: words.Bury}, gives=done, also=over,
            ),
            Operation(
                name="touch", method="POST", path="/leases/{handle}/touch", handle=self.touch, right="receive",
                says="Begin the time of a lease anew",
                takes={JSON: words.Touch}, gives=done, also=over,
            ),
            Operation(
                name="body", method="GET", path="/leases/{handle}/body", handle=self.body, right="receive",
                says="The body of a leased message, whatever its size",
                gives={200: Gives("The body.", {"*/*": BYTES})}, also=over,
            ),
            Operation(
                name="settle", method="POST", path="/leases", handle=self.settle, right="receive",
                says="Settle many leases in one commit",
                takes={JSON: words.Settles},
                gives={200: Gives("Which of them were still held.", {JSON: words.Settled})},
            ),
        ]  # fmt: skip


def _change(said: words.Settle, held: Held) -> Change:
    if said.action == "ack":
        return held.acked()
    if said.action == "bury":
        return held.buried(said.reason)
    return held.released(None if said.delay is UNSET else said.delay, reason=said.reason)
