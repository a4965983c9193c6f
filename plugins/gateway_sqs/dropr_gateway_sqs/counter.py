"""What all actions share: the desk, the queues, who asks, and which queue is meant.

Owns `Counter` and `Caller`. Must not know actions.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import attrs

from dropr_core.contracts.gateway import Counts, Desk
from dropr_core.system.clock import Clock
from dropr_gateway_sqs import requests
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.names import arn_of_name, name_of_url, url_of_name
from dropr_gateway_sqs.queues import Queue, Queues, untouched

T = TypeVar("T")
Result = dict[str, Any] | None
"""As Amazon's model names things; None where an action has no result."""


class Gone(Exception):
    """The client has hung up."""


@attrs.frozen
class Caller:
    """Who asks."""

    base: str
    """The address at which the client reached this door, such as ``http://localhost:9324``."""
    key_id: str
    """The access key that signed; empty if nobody has to sign."""
    hung_up: Callable[[], Awaitable[None]]
    """Returns when the client has gone."""

    async def while_here(self, work: Awaitable[T]) -> T:
        """The result of something that takes its time; it is cancelled when the client hangs up, and Gone is raised."""
        task, watch = asyncio.ensure_future(work), asyncio.ensure_future(self.hung_up())
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Gone
            return task.result()
        finally:
            task.cancel()
            watch.cancel()


class Counter:
    """The node as the actions see it."""

    def __init__(
        self, desk: Desk, queues: Queues, clock: Clock, log: logging.Logger, *, region: str, account: str
    ) -> None:
        self.desk, self.queues, self.clock, self.log = desk, queues, clock, log
        self.region, self.account = region, account
        self.wall: Callable[[], float] = time.time
        self._there: set[str] = set()

    def arn(self, name: str) -> str:
        """The ARN of a queue."""
        return arn_of_name(self.region, self.account, name)

    def url(self, caller: Caller, name: str) -> str:
        """The URL of a queue, as this caller reaches it."""
        return url_of_name(caller.base, self.account, name)

    async def queue_of(self, parameters: Mapping[str, Any]) -> Queue:
        """The queue whose URL a request names. Raises SqsError."""
        return await self.queue(name_of_url(requests.text(parameters, "QueueUrl")))

    async def queue(self, name: str) -> Queue:
        """A queue by its name: created here, or a channel that the node has. Raises SqsError."""
        found = await self.find(name)
        if found is None:
            raise SqsError("QueueDoesNotExist", "The specified queue does not exist.")
        return found

    async def find(self, name: str) -> Queue | None:
        """The same; None if there is none."""
        found = self.queues.get(name)
        if found is not None:
            return found
        if name not in self._there or name in self.queues.deleted:
            found = await self.queues.get_now(name)  # another machine may have created it this very moment
            if found is not None:
                return found
            self._there = set(await self.channels())
        return untouched(name) if name in self._there else None

    async def channels(self) -> list[str]:
        """Channels of the node that are queues: not one that was deleted here, until it holds messages again."""
        counts, deleted = await self.desk.counts(), self.queues.deleted
        return [name for name, one in counts.items() if name not in deleted or _holds(one)]

    def forget(self, name: str) -> None:
        """Look again whether the node has this channel."""
        self._there.discard(name)


def _holds(counts: Counts) -> bool:
    return bool(counts.ready or counts.blocked or counts.delayed or counts.leased)
