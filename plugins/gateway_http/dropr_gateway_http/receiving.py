"""Receiving: long polls, and looking without taking.

Owns the forms in which messages are answered. A caller that leaves while it waits gets nothing: what was leased for it
goes back at once. Must not know how leases end.
"""

import asyncio

from msgspec import UNSET

from dropr_core.contracts.gateway import Held
from dropr_core.model.message import State
from dropr_gateway_http import events, words
from dropr_gateway_http.exchange import Answer, Call, Gone, as_json
from dropr_gateway_http.operation import BYTES, Gives, Operation
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.service import INLINE, Service, as_content, as_message, one_answer, source_of

_FACTS = {
    "Dropr-Id": "The message's id.",
    "Dropr-Handle": "Proves the lease: settle with it.",
    "Dropr-Hold": "Seconds that the lease lasts.",
    "Dropr-Attempt": "1 at the first try.",
    "Dropr-Sender": "The node that sent it.",
    "Dropr-Headers": "The message's own headers: a JSON object.",
}


class Receiving:
    """The operations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def receive(self, call: Call) -> Answer:
        """Lease what is ready, or wait for it."""
        channel = call.path["channel"]
        call.caller.check("receive", channel)
        query: words.ReceiveQuery = call.query
        many = query.form in ("json", "batch")
        options = self._service.options
        hold = min(options.max_hold, options.hold if query.hold is UNSET else query.hold)
        reserving = self._service.desk.reserve(
            [channel], limit=query.limit if many else 1, wait=min(query.wait, options.max_wait), hold=hold
        )
        held = await (call.unless_gone(reserving) if query.wait else reserving)
        try:
            return await self._answer(held, query.form, many)
        except (Trouble, Gone):
            await _give_back(held)
            raise

    async def _answer(self, held: list[Held], form: str, many: bool) -> Answer:
        now = asyncio.get_running_loop().time()
        if not held:
            return Answer(204)
        if not many:
            return one_answer(held[0], form, now)
        room, taken = self._service.options.max_batch, list[Held]()
        for one in held:
            if (size := min(one.size, INLINE)) > room and taken:
                break
            room -= size
            taken.append(one)
        await _give_back(held[len(taken) :])
        if form == "json":
            return as_json(words.Messages([as_message(one, now) for one in taken]))
        if any(one.size > INLINE for one in taken):
            raise Trouble(413, "too_big", "one of these messages is too large for a batch; receive with as=raw or json")
        documents = [events.structured(as_content(one), one.id, source_of(one)) for one in taken]
        handles = ",".join(one.handle for one in taken)
        return Answer(body=b"[" + b",".join(documents) + b"]", media=events.BATCH, headers={"Dropr-Handles": handles})

    async def peek(self, call: Call) -> Answer:
        """The next one, untouched."""
        channel = call.path["channel"]
        call.caller.check("receive", channel)
        query: words.PeekQuery = call.query
        seen = await self._service.desk.peek(channel, State(query.state))
        if seen is None:
            return Answer(204)
        now = asyncio.get_running_loop().time()
        return as_json(as_message(seen, now)) if query.form == "json" else one_answer(seen, query.form, now)

    def operations(self) -> list[Operation]:
        """What is offered."""
        media = {
            "*/*": BYTES,
            "application/json": (words.Messages,),
            events.STRUCTURED: BYTES,
            events.BATCH: BYTES,
        }
        return [
            Operation(
                name="receive", method="GET", path="/channels/{channel}/messages", handle=self.receive, right="receive",
                says="Receive messages, waiting for them if you like",
                more="A message is yours until its lease ends: acknowledge it by its handle before, or it comes again "
                "to whoever receives next.",
                query=words.ReceiveQuery,
                gives={
                    200: Gives("A message, or several.", media, {**_FACTS, "Dropr-Handles": "Of a batch: one each."}),
                    204: Gives("There is none."),
                },
            ),
            Operation(
                name="peek", method="GET", path="/channels/{channel}/peek", handle=self.peek, right="receive",
                says="Look at the next message without taking it",
                more="Of those that are ready, delayed, or buried (the dead letters).",
                query=words.PeekQuery,
                gives={200: Gives("The message.", {"*/*": BYTES, "application/json": (words.Message,),
                                                   events.STRUCTURED: BYTES}, _FACTS),
                       204: Gives("There is none.")},
            ),
        ]  # fmt: skip


async def _give_back(held: list[Held]) -> None:
    for one in held:
        if not one.settled:
            await one.release(0.0, counted=False)
