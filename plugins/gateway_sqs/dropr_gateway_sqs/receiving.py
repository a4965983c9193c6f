"""ReceiveMessage, and how it ends: DeleteMessage and ChangeMessageVisibility, with their batches.

Owns receipt handles and what becomes of a message that was received too often. Must not know how a message is sent.
"""

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dropr_core.contracts.gateway import Held
from dropr_gateway_sqs import requests
from dropr_gateway_sqs.counter import Caller, Counter, Result
from dropr_gateway_sqs.dedup import Known, Window
from dropr_gateway_sqs.failures import SqsError, entry_error, invalid_parameter
from dropr_gateway_sqs.letters import DEDUP, GROUP, moved, to_message
from dropr_gateway_sqs.queues import Queue
from dropr_gateway_sqs.settings import Redrive

_LONGEST = 43200
_FIRSTS = 100_000
"""Messages of which the time of their first receive is remembered."""
_ATTEMPTS = 1000
_ATTEMPT_SECONDS = 300.0
_AT_ONCE = 60.0
"""Seconds for which a message is held that is received to be visible at once: until the answer is written."""


class Receiving:
    """The actions of a consumer."""

    def __init__(self, counter: Counter, window: Window) -> None:
        self._counter, self._window = counter, window
        self._firsts: OrderedDict[int, float] = OrderedDict()
        self._attempts: OrderedDict[tuple[str, str], tuple[float, list[Held]]] = OrderedDict()
        self._held: dict[str, dict[int, Held]] = {}

    # ── receive ──────────────────────────────────────────────────────────────────────────────────

    async def receive(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """ReceiveMessage."""
        queue = await self._counter.queue_of(parameters)
        limit = requests.number(parameters, "MaxNumberOfMessages", 1, 10) or 1
        wait = requests.number(parameters, "WaitTimeSeconds", 0, 20)
        hidden = requests.number(parameters, "VisibilityTimeout", 0, _LONGEST)
        if wait is None:
            wait = queue.settings.number("ReceiveMessageWaitTimeSeconds")
        if hidden is None:
            hidden = queue.settings.number("VisibilityTimeout")
        system = requests.texts(parameters, "MessageSystemAttributeNames") + requests.texts(
            parameters, "AttributeNames"
        )
        wanted = requests.texts(parameters, "MessageAttributeNames")
        attempt = requests.optional_text(parameters, "ReceiveRequestAttemptId")
        again = self._again(queue, attempt, hidden) if attempt and queue.fifo else None
        held = again or await self._reserve(queue, limit, 0.0, float(hidden))
        if not held and wait:  # only who waits may hang up meanwhile, and then nothing is leased for nobody
            held = await caller.while_here(self._reserve(queue, limit, float(wait), float(hidden)))
        if not held:
            return {}
        if attempt and queue.fifo:
            self._remember(queue, attempt, held)
        now = self._counter.wall()
        messages = [
            to_message(one, _receipt(one), system=system, wanted=wanted, first_receive=self._first(one, now))
            for one in held
        ]
        if not hidden:
            await self._counter.desk.settle(*(one.released() for one in held))
        return {"Messages": messages}

    async def _reserve(self, queue: Queue, limit: int, wait: float, hidden: float) -> list[Held]:
        """Messages, but for those received too often, which move to the dead-letter queue."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            left = max(0.0, until - loop.time())
            found = await self._counter.desk.reserve([queue.name], limit=limit, wait=left, hold=hidden or _AT_ONCE)
            redrive = queue.settings.redrive
            good, dead = list[Held](), list[Held]()
            for one in found:
                (dead if redrive is not None and one.attempt > redrive.most else good).append(one)
            if dead and redrive is not None:
                good += await self._give_up(queue, redrive, dead)
            if good or not found:
                self._note(queue.name, good)
                return sorted(good, key=lambda one: one.number) if queue.fifo else good

    async def _give_up(self, queue: Queue, redrive: Redrive, dead: list[Held]) -> list[Held]:
        """Move messages to the dead-letter queue: stored there, then released here. Those that cannot move are returned
        to be received once more, as SQS does if there is no such queue.
        """
        target = await self._counter.find(redrive.target)
        if target is None:
            self._counter.log.error(
                "queue %s: its dead-letter queue %s does not exist; messages received more than %d times stay where "
                "they are; create it, or change the RedrivePolicy", queue.name, redrive.target, redrive.most,
            )  # fmt: skip
            return dead
        source, life = self._counter.arn(queue.name), float(target.settings.number("MessageRetentionPeriod"))
        parcels = [
            moved(one, target.name, fifo=target.fifo, source=source, dedup=f"sqs-dead\n{one.id}", life=life)
            for one in dead
        ]
        await self._counter.desk.put(*parcels)
        await self._counter.desk.settle(*(one.acked() for one in dead))
        return []

    def _note(self, name: str, held: list[Held]) -> None:
        mine = self._held.setdefault(name, {})
        if len(mine) > 64 and not len(mine) & (len(mine) - 1):  # at 128, 256 …: forget those that have ended
            mine = self._held[name] = {number: one for number, one in mine.items() if not one.settled}
        mine.update((one.number, one) for one in held)

    def held_of(self, name: str) -> list[Held]:
        """What is in flight in a queue, in the hands of this door."""
        return [one for one in self._held.get(name, {}).values() if not one.settled]

    def _first(self, held: Held, now: float) -> float:
        found = self._firsts.setdefault(held.number, now)
        if len(self._firsts) > _FIRSTS:
            self._firsts.popitem(last=False)
        return found

    def _again(self, queue: Queue, attempt: str, hidden: int) -> list[Held] | None:
        """What was received under this attempt id, if all of it is still in flight; its time begins anew."""
        until, held = self._attempts.get((queue.name, attempt), (0.0, []))
        if not held or until < self._counter.clock.now() or any(one.settled for one in held):
            return None
        return held if all(one.touch(hidden or _AT_ONCE) for one in held) else None

    def _remember(self, queue: Queue, attempt: str, held: list[Held]) -> None:
        self._attempts[queue.name, attempt] = (self._counter.clock.now() + _ATTEMPT_SECONDS, held)
        if len(self._attempts) > _ATTEMPTS:
            self._attempts.popitem(last=False)

    # ── delete, and change the visibility ────────────────────────────────────────────────────────

    async def delete(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """DeleteMessage."""
        await self._delete(await self._counter.queue_of(parameters), parameters)
        return None

    async def delete_batch(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """DeleteMessageBatch: one commit for all of them."""
        queue = await self._counter.queue_of(parameters)
        found: dict[int, Held] = {}
        mine: list[tuple[str, Held | None]] = []
        failed = []
        for entry in requests.entries(parameters):
            try:
                held = await self._by_receipt(queue, requests.text(entry, "ReceiptHandle"))
            except SqsError as error:
                failed.append(entry_error(entry["Id"], error))
                continue
            if held is not None:
                found[held.number] = held
            mine.append((entry["Id"], held))
        deleted = dict(zip(found, await self._acknowledge(queue, list(found.values())), strict=True))
        done = []
        for own, held in mine:
            if queue.fifo and held is not None and not deleted[held.number]:
                failed.append(entry_error(own, _expired()))
            else:
                done.append({"Id": own})
        return {"Successful": done, "Failed": failed}

    async def change(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """ChangeMessageVisibility."""
        await self._change(await self._counter.queue_of(parameters), parameters)
        return None

    async def change_batch(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """ChangeMessageVisibilityBatch."""
        return await self._each(parameters, self._change)

    async def _each(
        self, parameters: Mapping[str, Any], do: Callable[[Queue, Mapping[str, Any]], Awaitable[None]]
    ) -> Result:
        """Do it with each entry; what they settle at the same time is one commit."""
        queue = await self._counter.queue_of(parameters)
        entries = requests.entries(parameters)
        results = await asyncio.gather(*(do(queue, entry) for entry in entries), return_exceptions=True)
        done, failed = [], []
        for entry, result in zip(entries, results, strict=True):
            if result is None:
                done.append({"Id": entry["Id"]})
            elif isinstance(result, SqsError):
                failed.append(entry_error(entry["Id"], result))
            else:
                raise result
        return {"Successful": done, "Failed": failed}

    async def _delete(self, queue: Queue, entry: Mapping[str, Any]) -> None:
        held = await self._by_receipt(queue, requests.text(entry, "ReceiptHandle"))
        # Somebody else has it by now, or deleted it: done, says SQS in a standard queue; an error in a FIFO queue.
        if held is not None and await self._acknowledge(queue, [held]) != [True] and queue.fifo:
            raise _expired()

    async def _acknowledge(self, queue: Queue, messages: list[Held]) -> list[bool]:
        for held in messages:
            self._note_dedup(queue, held)
        done = await self._counter.desk.settle(*[held.acked() for held in messages]) if messages else []
        flying = self._held.get(queue.name, {})
        for held, good in zip(messages, done, strict=True):
            if good:
                self._firsts.pop(held.number, None)
                flying.pop(held.number, None)
        return done

    async def _change(self, queue: Queue, entry: Mapping[str, Any]) -> None:
        handle = requests.text(entry, "ReceiptHandle")
        seconds = requests.number(entry, "VisibilityTimeout", 0, _LONGEST)
        if seconds is None:
            raise SqsError("MissingParameter", "The request must contain the parameter VisibilityTimeout.")
        held = await self._by_receipt(queue, handle)
        if held is not None and (held.touch(float(seconds)) if seconds else await held.release()):
            return
        raise SqsError(
            "MessageNotInflight", "The message referred to is not in flight: it was deleted, or is visible again."
        )

    async def _by_receipt(self, queue: Queue, receipt: str) -> Held | None:
        handle, _, check = receipt.partition(".")
        if not receipt.isascii() or check != _check(handle):
            raise SqsError(
                "ReceiptHandleIsInvalid", f'The input receipt handle "{receipt[:100]}" is not a valid receipt handle.'
            )
        held = await self._counter.desk.by_handle(handle)
        if held is not None and held.channel != queue.name:
            raise SqsError("ReceiptHandleIsInvalid", "The receipt handle is one of another queue.")
        return held

    def _note_dedup(self, queue: Queue, held: Held) -> None:
        dedup = held.headers.get(DEDUP) if queue.fifo else None
        if dedup is not None:
            scope = f"{held.headers.get(GROUP)}\n" if queue.settings.dedup_by_group else ""
            self._window.note((queue.name, scope + dedup), Known(held.id, held.number), held.age)


def _expired() -> SqsError:
    return invalid_parameter("Value for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.")


def _receipt(held: Held) -> str:
    return f"{held.handle}.{_check(held.handle)}"


def _check(handle: str) -> str:
    """Tells a receipt handle that is over from a text that never was one."""
    return f"{zlib.crc32(handle.encode()):08x}"
