"""StartMessageMoveTask and its kin: dead letters go back to where they came from.

Owns the tasks, which run in this process: one that is cut off by a restart is over, and what it had not moved is where
it was. Must not know how messages got into a dead-letter queue.
"""

import asyncio
import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from dropr_core.contracts.gateway import Held
from dropr_core.errors import DroprError
from dropr_gateway_sqs import requests
from dropr_gateway_sqs.counter import Caller, Counter, Result
from dropr_gateway_sqs.failures import SqsError, invalid_parameter
from dropr_gateway_sqs.letters import SOURCE, moved
from dropr_gateway_sqs.names import name_of_arn
from dropr_gateway_sqs.queues import Queue

_FASTEST = 500
_KEPT = 10
"""Tasks of a queue that are listed: as many as SQS lists."""
_MOST_QUEUES = 1000
_HOLD = 60.0


@attrs.define(eq=False)
class _Task:
    id: str
    source: Queue
    target: Queue | None
    rate: int | None
    started: int
    to_move: int
    moved: int = 0
    status: str = "RUNNING"
    reason: str = ""
    work: "asyncio.Task[None] | None" = None


class Moving:
    """The three actions."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._tasks: dict[str, list[_Task]] = {}

    async def start(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """StartMessageMoveTask."""
        source = await self._by_arn(parameters, "SourceArn")
        target = None
        if requests.optional_text(parameters, "DestinationArn"):
            target = await self._by_arn(parameters, "DestinationArn")
            if target.name == source.name:
                raise invalid_parameter("Source and destination are the same queue.")
        rate = requests.number(parameters, "MaxNumberOfMessagesPerSecond", 1, _FASTEST)
        if not self._counter.queues.sources_of(source.name):
            raise invalid_parameter("Source queue must be configured as a Dead Letter Queue.")
        tasks = self._tasks.setdefault(source.name, [])
        if any(task.work is not None and not task.work.done() for task in tasks):
            raise SqsError("UnsupportedOperation", "There is already a task running for this queue.")
        counts = await self._counter.desk.count(source.name)
        task = _Task(str(uuid.uuid4()), source, target, rate, int(self._counter.wall() * 1000), counts.ready)
        tasks.insert(0, task)
        del tasks[_KEPT:]
        if len(self._tasks) > _MOST_QUEUES:
            self._tasks.pop(next(iter(self._tasks)))
        task.work = asyncio.get_running_loop().create_task(self._run(task))
        return {"TaskHandle": self._handle(task)}

    async def cancel(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """CancelMessageMoveTask."""
        own, name = _read_handle(requests.text(parameters, "TaskHandle"))
        task = next((one for one in self._tasks.get(name, ()) if one.id == own), None)
        if task is None:
            raise SqsError("ResourceNotFoundException", "There is no such task; a restart of the gateway ends tasks.")
        if task.work is not None and not task.work.done():
            task.status = "CANCELLED"
            task.work.cancel()
            await asyncio.gather(task.work, return_exceptions=True)
        return {"ApproximateNumberOfMessagesMoved": task.moved}

    async def list_tasks(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """ListMessageMoveTasks."""
        source = await self._by_arn(parameters, "SourceArn")
        most = requests.number(parameters, "MaxResults", 1, _KEPT) or 1
        return {"Results": [self._shown(task) for task in self._tasks.get(source.name, [])[:most]]}

    def _shown(self, task: _Task) -> dict[str, Any]:
        made: dict[str, Any] = {
            "Status": task.status,
            "SourceArn": self._counter.arn(task.source.name),
            "ApproximateNumberOfMessagesMoved": task.moved,
            "ApproximateNumberOfMessagesToMove": task.to_move,
            "StartedTimestamp": task.started,
        }
        if task.status == "RUNNING":
            made["TaskHandle"] = self._handle(task)
        if task.target is not None:
            made["DestinationArn"] = self._counter.arn(task.target.name)
        if task.rate is not None:
            made["MaxNumberOfMessagesPerSecond"] = task.rate
        if task.reason:
            made["FailureReason"] = task.reason
        return made

    async def close(self) -> None:
        """End all of them."""
        running = [task.work for tasks in self._tasks.values() for task in tasks if task.work is not None]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _by_arn(self, parameters: Mapping[str, Any], name: str) -> Queue:
        found = await self._counter.find(name_of_arn(requests.text(parameters, name), name))
        if found is None:
            raise SqsError(
                "ResourceNotFoundException", f"The resource that you specified for the {name} parameter doesn't exist."
            )
        return found

    def _handle(self, task: _Task) -> str:
        return base64.b64encode(msgspec.json.encode([task.id, task.source.name])).decode()

    async def _run(self, task: _Task) -> None:
        desk, limit = self._counter.desk, min(10, task.rate or 10)
        try:
            while task.moved < task.to_move or task.to_move == 0:
                held = await desk.reserve([task.source.name], limit=limit, hold=_HOLD)
                if not held:
                    break
                await self._move(task, held)
                if task.rate:
                    await asyncio.sleep(len(held) / task.rate)
            task.status = "COMPLETED"
        except (SqsError, DroprError) as error:
            task.status, task.reason = "FAILED", str(error)
            self._counter.log.error("moving dead letters out of %s stopped: %s", task.source.name, error)

    async def _move(self, task: _Task, held: list[Held]) -> None:
        """Stored there, then acknowledged here; a copy that was stored before is not stored again."""
        desk = self._counter.desk
        try:
            parcels = []
            for one in held:
                target = task.target or await self._origin(one)
                life = float(target.settings.number("MessageRetentionPeriod"))
                parcels.append(
                    moved(one, target.name, fifo=target.fifo, source=None, dedup=f"sqs-move\n{one.id}", life=life)
                )
            await desk.put(*parcels)
        except BaseException:
            await asyncio.shield(desk.settle(*(one.released(counted=False) for one in held)))
            raise
        await asyncio.shield(desk.settle(*(one.acked() for one in held)))
        task.moved += len(held)

    async def _origin(self, held: Held) -> Queue:
        arn = held.headers.get(SOURCE)
        if arn is None:
            raise SqsError(
                "CouldNotDetermineMessageSource", f"message {held.id} came from no other queue; name a DestinationArn"
            )
        return await self._counter.queue(name_of_arn(arn, "DestinationArn"))


def _read_handle(text: str) -> tuple[str, str]:
    try:
        return msgspec.json.decode(base64.b64decode(text.encode("ascii"), validate=True), type=tuple[str, str])
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise SqsError("ResourceNotFoundException", "The task handle is none of this gateway's.") from None
