"""SendMessage and SendMessageBatch.

Owns the checks of a message against Amazon's limits and the queue's, and the deduplication of FIFO queues. Must not
know how a message is received.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dropr_core.contracts.gateway import Parcel
from dropr_core.errors import Conflict, UsageError
from dropr_gateway_sqs import attributes, requests
from dropr_gateway_sqs.attributes import MessageAttribute
from dropr_gateway_sqs.counter import Caller, Counter, Result
from dropr_gateway_sqs.dedup import Key, Known, Window
from dropr_gateway_sqs.failures import SqsError, entry_error, invalid_parameter, missing
from dropr_gateway_sqs.letters import Letter, sequence, to_parcel
from dropr_gateway_sqs.queues import Queue
from dropr_gateway_sqs.settings import LARGEST

_TOKEN = re.compile(r"[\x21-\x7e]{1,128}")


@attrs.define(eq=False)
class _Item:
    """One message on its way."""

    letter: Letter
    parcel: Parcel
    key: Key | None = None
    """Of FIFO queues: what makes it the same message as another one."""
    mine: bool = True
    """False: somebody else sends, or sent, the message of that key."""
    known: Known | None = None
    """Where it is, once it is stored."""
    result: "asyncio.Future[Known] | None" = None
    """The same where there is a key, whoever sends it."""
    error: Exception | None = None


class Sending:
    """The two actions."""

    def __init__(self, counter: Counter, window: Window) -> None:
        self._counter, self._window = counter, window

    async def send(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """SendMessage."""
        queue = await self._counter.queue_of(parameters)
        letter, weight = _read(parameters, queue)
        _check_weight(weight, queue)
        item = self._item(letter, queue, caller)
        await self._put([item])
        return await self._answer(item, queue)

    async def send_batch(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """SendMessageBatch: one commit for all of them."""
        queue = await self._counter.queue_of(parameters)
        entries = requests.entries(parameters)
        items: dict[str, _Item] = {}
        failed: dict[str, Exception] = {}
        total = 0
        for entry in entries:
            try:
                letter, weight = _read(entry, queue)
                total += weight
                _check_weight(weight, queue)
                items[entry["Id"]] = self._item(letter, queue, caller)
            except SqsError as error:
                failed[entry["Id"]] = error
        if total > LARGEST:
            raise SqsError(
                "BatchRequestTooLong",
                f"Batch requests cannot be longer than {LARGEST} bytes. You have sent {total} bytes.",
            )
        await self._put(list(items.values()))
        done = []
        for own, item in items.items():
            try:
                done.append({"Id": own, **await self._answer(item, queue)})
            except (SqsError, UsageError) as error:
                failed[own] = error
        return {"Successful": done, "Failed": [entry_error(own, error) for own, error in failed.items()]}

    def _item(self, letter: Letter, queue: Queue, caller: Caller) -> _Item:
        key, text = None, None
        if queue.fifo and letter.dedup is not None:
            scope = f"{letter.group}\n" if queue.settings.dedup_by_group else ""
            key = (queue.name, scope + letter.dedup)
            text = self._window.text(key)
        life = float(queue.settings.number("MessageRetentionPeriod"))
        parcel = to_parcel(letter, queue.name, fifo=queue.fifo, sender=caller.key_id, life=life, dedup=text)
        return _Item(letter, parcel, key)

    async def _put(self, items: Sequence[_Item]) -> None:
        """Store what is new, in one commit if nothing is wrong with any of it."""
        new = []
        for item in items:
            if item.key is not None:
                item.result, item.mine = self._window.begin(item.key)
            if item.mine:
                new.append(item)
        try:
            if self._window.young:
                for item in [one for one in new if one.key is not None]:
                    if item.key is not None and await self._known(item.key):
                        new.remove(item)
            await self._store(new)
        except BaseException as error:
            for item in new:
                if item.key is not None:
                    self._window.settle(item.key, None, error if isinstance(error, Exception) else None)
            raise

    async def _known(self, key: Key) -> bool:
        known = await self._window.before_restart(self._counter.desk, key)
        if known is not None:
            self._window.settle(key, known)
        return known is not None

    async def _store(self, items: Sequence[_Item]) -> None:
        if not items:
            return
        try:
            placed = await self._counter.desk.put(*(item.parcel for item in items))
        except UsageError as error:
            if len(items) > 1:  # all or none: find out whose fault it is
                for item in items:
                    await self._store([item])
                return
            self._refused(items[0], error)
            return
        for item, one in zip(items, placed, strict=True):
            known = Known(one.id, one.number)
            item.known = known
            if item.key is not None:
                self._window.settle(item.key, known)

    def _refused(self, item: _Item, error: UsageError) -> None:
        if item.key is not None and isinstance(error, Conflict):
            # Sent before we were started, in this span of time, with another content: SQS takes that for the same.
            known = self._window.same_span(self._counter.desk, item.key)
            self._window.settle(item.key, known)
            return
        item.error = invalid_parameter(str(error))
        if item.key is not None:
            self._window.settle(item.key, None, item.error)

    async def _answer(self, item: _Item, queue: Queue) -> dict[str, Any]:
        if item.error is not None:
            raise item.error
        known = item.known
        if known is None:
            if item.result is None:
                raise SqsError("InternalFailure", "The message was not stored.", status=500)
            known = await asyncio.shield(item.result)
        made = {"MessageId": known.id, **item.letter.digests()}
        if queue.fifo:
            made["SequenceNumber"] = sequence(known.number)
        return made


def _check_weight(weight: int, queue: Queue) -> None:
    most = queue.settings.number("MaximumMessageSize")
    if weight > most:
        raise invalid_parameter(
            f"One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
        )  # fmt: skip


def _read(parameters: Mapping[str, Any], queue: Queue) -> tuple[Letter, int]:
    """A message, and its weight in bytes. Raises SqsError."""
    body = requests.text(parameters, "MessageBody")
    if not attributes.is_text(body):
        raise SqsError(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to "
            "#xFFFD | #x10000 to #x10FFFF",
        )
    data = body.encode()
    given = attributes.read(parameters.get("MessageAttributes"))
    delay = requests.number(parameters, "DelaySeconds", 0, 900)
    group, dedup = _fifo_ids(parameters, data, queue, delay)
    letter = Letter(
        body=data, attributes=given, trace=_trace(parameters.get("MessageSystemAttributes")), group=group, dedup=dedup,
        delay=float(queue.settings.number("DelaySeconds") if delay is None else delay),
    )  # fmt: skip
    return letter, len(data) + attributes.weight(given)


def _fifo_ids(
    parameters: Mapping[str, Any], body: bytes, queue: Queue, delay: int | None
) -> tuple[str | None, str | None]:
    group = _token(parameters, "MessageGroupId")
    dedup = _token(parameters, "MessageDeduplicationId")
    if not queue.fifo:
        if dedup is not None:
            raise invalid_parameter(
                "The request include parameter that is not valid for this queue type: MessageDeduplicationId"
            )
        return group, None
    if group is None:
        raise missing("MessageGroupId")
    if delay:
        raise invalid_parameter(
            f"Value {delay} for parameter DelaySeconds is invalid. Reason: The request include parameter that is not "
            "valid for this queue type."
        )
    if dedup is None:
        if not queue.settings.content_dedup:
            raise invalid_parameter(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                "explicitly"
            )
        dedup = hashlib.sha256(body).hexdigest()
    return group, dedup


def _token(parameters: Mapping[str, Any], name: str) -> str | None:
    value = requests.optional_text(parameters, name)
    if value is not None and not _TOKEN.fullmatch(value):
        raise invalid_parameter(
            f"Value for parameter {name} is invalid. Reason: {name} can only include alphanumeric and punctuation "
            "characters. 1 to 128 in length."
        )
    return value


def _trace(given: object) -> MessageAttribute | None:
    read = attributes.read(given)
    for name, one in read.items():
        if name != "AWSTraceHeader" or one.data_type != "String":
            raise invalid_parameter("The only message system attribute is AWSTraceHeader, of the type String.")
    return read.get("AWSTraceHeader")
