"""Sending: one message of any size, or many in one commit.

Owns how a request's body becomes parcels: small ones in memory, large ones written to a file as they come. Must not
know where messages go.
"""

import contextlib

import attrs

from dropr_core.contracts.gateway import Placed
from dropr_gateway_http import batches, events, words
from dropr_gateway_http.exchange import Answer, Call, as_json
from dropr_gateway_http.operation import BYTES, Gives, Operation
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.reading import parcel_of
from dropr_gateway_http.service import INLINE, Service


class Sending:
    """The operations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def send(self, call: Call) -> Answer:
        """One message; as a batch of events many."""
        channel = call.path["channel"]
        call.caller.check("send", channel)
        media = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media == events.BATCH:
            return await self.send_batch(call)
        options = self._service.options
        dedup = options.deduplicate_events
        if media == events.STRUCTURED:
            async with self._service.batches:
                body = await call.whole(options.max_batch)
                return _one(await self._service.desk.put(parcel_of(channel, call.headers, body, event_dedup=dedup)))
        parcel = parcel_of(channel, call.headers, b"", event_dedup=dedup)  # what is wrong is said before it is all here
        beginning = await call.begin(INLINE)
        if not call.more and len(beginning) <= INLINE:
            return _one(await self._service.desk.put(attrs.evolve(parcel, body=beginning)))
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._service.uploads)
            upload = await stack.enter_async_context(self._service.desk.upload())
            await upload.write(beginning)
            del beginning
            while call.more:
                await upload.write(await call.piece())
            return _one(await self._service.desk.put(attrs.evolve(parcel, large=upload)))

    async def send_batch(self, call: Call) -> Answer:
        """Many, all or none."""
        channel = call.path["channel"]
        call.caller.check("send", channel)
        content_type = call.headers.get("content-type", "")
        media = content_type.partition(";")[0].strip().lower()
        if media not in (batches.JSON, batches.LINES, events.BATCH, *batches.MULTIPART):
            raise Trouble(
                415,
                "media",
                f"a batch is {batches.JSON}, {batches.LINES}, {events.BATCH} or multipart, not {media[:100]!r}; a "
                "single message of any type goes to /channels/CHANNEL/messages",
            )
        call.announced(self._service.options.max_batch)
        async with self._service.batches:
            body = await call.whole(self._service.options.max_batch)
            if media == batches.JSON:
                parcels = batches.of_json(channel, body)
            elif media == batches.LINES:
                parcels = batches.of_lines(channel, body)
            elif media == events.BATCH:
                parcels = [
                    attrs.evolve(
                        parcel_of(channel, call.headers, b""),
                        body=one.body,
                        content_type=one.content_type,
                        dedup=one.dedup if self._service.options.deduplicate_events else None,
                    )
                    for one in events.of_batch(body)
                ]
            else:
                parcels = batches.of_multipart(channel, content_type, body)
            del body
            placed = await self._service.desk.put(*parcels)
        return as_json([_sent(one) for one in placed], 200 if all(one.duplicate for one in placed) else 201)

    def operations(self) -> list[Operation]:
        """What is offered."""
        id_headers = {"Dropr-Id": "The message's id.", "Location": "Where its status is."}
        return [
            Operation(
                name="send", method="POST", path="/channels/{channel}/messages", handle=self.send, right="send",
                says="Send a message",
                more="The body is the message: any bytes, of any type and size. It is on stable storage when this is "
                "answered. CloudEvents are taken in binary, structured and batched content mode.",
                headers=words.SendHeaders, takes={"*/*": BYTES},
                gives={
                    201: Gives("Stored. Of a batch of events: a list.",
                               {"application/json": words.SentMessage | list[words.SentMessage]}, id_headers),
                    200: Gives("It was there already, by its idempotency key: nothing was stored twice.",
                               {"application/json": words.SentMessage | list[words.SentMessage]}, id_headers),
                },
                also={409: "The idempotency key was used before, with other content."},
            ),
            Operation(
                name="sendBatch", method="POST", path="/channels/{channel}/batch", handle=self.send_batch, right="send",
                says="Send many messages in one commit, all or none",
                more="A JSON array; JSON lines; CloudEvents in batched mode; or multipart, where each part is a "
                "message with the headers that a request of its own would have.",
                takes={"application/json": words.Items, "application/x-ndjson": BYTES, events.BATCH: events.Events,
                       "multipart/form-data": BYTES, "multipart/mixed": BYTES},
                gives={201: Gives("All are stored.", {"application/json": list[words.SentMessage]}),
                       200: Gives("All were there already.", {"application/json": list[words.SentMessage]})},
                also={409: "An idempotency key was used before, with other content.", 415: "No form of a batch."},
            ),
        ]  # fmt: skip


def _sent(placed: Placed) -> words.SentMessage:
    return words.SentMessage(placed.id, placed.duplicate, placed.local)


def _one(placed: list[Placed]) -> Answer:
    (one,) = placed
    headers = {"Dropr-Id": one.id, "Location": f"/messages/{one.id}"}
    return as_json(_sent(one), 200 if one.duplicate else 201, headers)
