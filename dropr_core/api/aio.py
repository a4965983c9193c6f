"""The public API for asyncio: the same names as `Node`, nothing blocking the loop.

Owns the bridge only: stores are called in threads (their commits wait for disks), the notifier's
descriptor is watched by the event loop itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from dropr_core.api.composer import Composer, Duration
from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.api.sent import MessageStatus, Sent
from dropr_core.config.node import NodeConfig
from dropr_core.errors import Closed, WaitTimeout
from dropr_core.model import topics
from dropr_core.system.notifier import LOOK_AGAIN

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AsyncReceived:
    """A leased message; `ack`, `release` and `bury` are awaited. Facts are those of `Received`."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._received, name)

    async def ack(self, result: Any = None) -> None:
        """As `Received.ack`."""
        await asyncio.to_thread(self._received.ack, result)

    async def release(self, delay: float | None = None, reason: str = "") -> None:
        """As `Received.release`."""
        await asyncio.to_thread(self._received.release, delay, reason)

    async def bury(self, reason: str = "") -> None:
        """As `Received.bury`."""
        await asyncio.to_thread(self._received.bury, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return await asyncio.to_thread(self._received.__exit__, kind, error, trace)


class AsyncSent:
    """A message on its way; facts are those of `Sent`."""

    def __init__(self, node: Node, sent: Sent) -> None:
        self._node, self._sent = node, sent

    @property
    def id(self) -> str:
        """The message's id as text."""
        return self._sent.id

    @property
    def existed(self) -> bool:
        """Whether this id was sent before with the same content."""
        return self._sent.existed

    async def status(self) -> MessageStatus:
        """As `Sent.status`."""
        return await asyncio.to_thread(lambda: self._sent.status)

    async def cancel(self) -> bool:
        """As `Sent.cancel`."""
        return await asyncio.to_thread(self._sent.cancel)

    async def wait(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the same names as Node
        """As `Sent.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._node.runtime.notifier.subscribe(topics.RECEIPTS) as subscription:
            while True:
                subscription.prepare()
                status = await self.status()
                if status.ended:
                    return self._sent.result_of(status)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"message {self.id} is {status.state} after {timeout} s; it stays on its way")
                # A process killed before its notification notifies nobody: look again now and then.
                await readable(subscription.fileno(), LOOK_AGAIN if left is None else min(left, LOOK_AGAIN))

    async def processed(self) -> Any:
        """Wait without a limit."""
        return await self.wait()


class AsyncBatch:
    """As `sent.Batch`; the commit happens on leaving the block."""

    def __init__(self, node: Node, timeout: Duration) -> None:
        self._batch = node.batch(timeout=timeout)

    def send(self, value: Any = b"", **options: Any) -> None:
        """As `Batch.send`. Writes large bodies at once, which holds up the loop: better `AsyncNode.send` those."""
        self._batch.send(value, **options)

    async def __aenter__(self) -> Self:
        self._batch.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._batch.__exit__, kind, error, trace)


class AsyncNode:
    """A node for asyncio: ``async with dropr_core.aopen("shop.yaml") as node``."""

    def __init__(self, config: NodeConfig | Path | str) -> None:
        self._config = config
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The node beneath; its methods block."""
        if self._node is None:
            raise Closed("use it as `async with dropr_core.aopen(...) as node`")
        return self._node

    async def send(self, value: Any = b"", **options: Any) -> AsyncSent:
        """As `Node.send`."""
        return AsyncSent(self.node, await self._call(self.node.send, value, **options))

    def batch(self, *, timeout: Duration = 0.0) -> AsyncBatch:
        """As `Node.batch`, used with ``async with``."""
        return AsyncBatch(self.node, timeout)

    async def put(self, value: Any = b"", **options: Any) -> str:
        """As `Node.put`."""
        return await self._call(self.node.put, value, **options)

    async def find(self, message_id: str | bytes) -> AsyncSent | None:
        """As `Node.find`."""
        sent = await self._call(self.node.find, message_id)
        return None if sent is None else AsyncSent(self.node, sent)

    async def status(self, message_id: str | bytes) -> MessageStatus | None:
        """As `Node.status`."""
        return await self._call(self.node.status, message_id)

    async def receive(
        self,
        *channels: str,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same names as Node
        prefetch: int = 1,
        on_error: Any = "raise",
    ) -> AsyncIterator[AsyncReceived]:
        """As `Node.receive`: leaving the body acknowledges, abandoning the loop gives back."""
        async for batch in self._batches(channels, prefetch, limit, wait, timeout, on_error):
            for index, received in enumerate(batch):
                finished = False
                try:
                    yield AsyncReceived(received)
                    finished = True
                finally:
                    if not finished:
                        for unused in batch[index:]:
                            unused.requeue()
                if not received.settled:
                    await asyncio.to_thread(received.ack)

    async def receive_batches(
        self,
        *channels: str,
        size: int = 500,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the same names as Node
    ) -> AsyncIterator[list[Received]]:
        """As `Node.receive_batches`."""
        consumer: list[Consumer] = []
        async for batch in self._batches(channels, size, limit, wait, timeout, "raise", consumer):
            finished = False
            try:
                yield batch
                finished = True
            finally:
                if not finished:
                    for unused in batch:
                        unused.requeue()
            await asyncio.to_thread(consumer[0].acknowledge, [one for one in batch if not one.settled])

    async def _batches(
        self,
        channels: tuple[str, ...],
        size: int,
        limit: int | None,
        wait: Duration | None,
        timeout: Duration | None,  # noqa: ASYNC109 - the same names as Node
        on_error: Any,
        keep: list[Consumer] | None = None,
    ) -> AsyncIterator[list[Received]]:
        seconds = Composer.seconds
        ends = None if timeout is None else time.monotonic() + seconds(timeout)
        consumer = await self._call(self.node.consumer, *channels, on_error=on_error)
        if keep is not None:
            keep.append(consumer)
        left = limit
        try:
            while left is None or left > 0:
                pause = None if wait is None else time.monotonic() + seconds(wait)
                deadline = min((moment for moment in (ends, pause) if moment is not None), default=None)
                batch = await self._take(consumer, size if left is None else min(size, left), deadline)
                if not batch:
                    return
                yield batch
                left = None if left is None else left - len(batch)
        finally:
            consumer.close()

    @staticmethod
    async def _take(consumer: Consumer, limit: int, deadline: float | None) -> list[Received]:
        while True:
            if found := await asyncio.to_thread(consumer.claim, limit):
                return found
            consumer.prepare()
            if found := await asyncio.to_thread(consumer.claim, limit):
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return []
            await readable(consumer.fileno(), await asyncio.to_thread(consumer.patience, left))

    @staticmethod
    async def _call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.to_thread(function, *args, **kwargs)

    async def close(self) -> None:
        """As `Node.close`."""
        node, self._node = self._node, None
        if node is not None:
            await asyncio.to_thread(node.close)

    async def __aenter__(self) -> Self:
        self._node = await asyncio.to_thread(Node.open, self._config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def readable(fd: int, timeout: float | None) -> None:  # noqa: ASYNC109 - a plain wait
    """Wait until a descriptor can be read, or the time (seconds) has passed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await asyncio.wait_for(ready, timeout)
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(fd)
