"""The public API for asyncio: the same names as `Node`, nothing blocking the loop.

Owns the bridge only: stores are called in threads (their commits wait for disks), the notifier's
descriptor is watched by the event loop itself.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from dropr_core.api.async_bridge import Endings, readable, to_the_end
from dropr_core.api.async_receive import AsyncReceived, receive_batches, receive_each
from dropr_core.api.batch import Batch
from dropr_core.api.consumer import OnError
from dropr_core.api.node import Node
from dropr_core.api.prefetching import batches, singles
from dropr_core.api.send_options import Duration, MessageRef, PutOptions, SendOptions, as_seconds
from dropr_core.api.sent import Durability, MessageStatus, Sent
from dropr_core.builtin.handlers.functions import F
from dropr_core.config.node import NodeConfig
from dropr_core.contracts.bodies import Progress
from dropr_core.errors import Closed, WaitTimeout
from dropr_core.model import topics
from dropr_core.model.names import DEFAULT_CHANNEL
from dropr_core.system.notifier import LOOK_AGAIN
from dropr_core.transactions.recognise import is_async


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

    @property
    def durability(self) -> Durability:
        """As `Sent.durability`."""
        return self._sent.durability

    async def status(self) -> MessageStatus:
        """As `Sent.status`."""
        return await asyncio.to_thread(lambda: self._sent.status)

    async def cancel(self) -> bool:
        """As `Sent.cancel`."""
        return await asyncio.to_thread(self._sent.cancel)

    async def wait(self, timeout: Duration | None = None) -> Any:  # noqa: ASYNC109 - the same names as Node
        """As `Sent.wait`."""
        patience = as_seconds(timeout, "timeout")
        deadline = None if patience is None else time.monotonic() + patience
        with self._node.runtime.notifier.subscribe(topics.RECEIPTS) as subscription:
            while True:
                subscription.prepare()
                status = await self.status()
                if status.ended:
                    return self._sent.result_of(status)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"message {self.id} is {status.state} after {patience:g} s; it stays on its way")
                # A process killed before its notification notifies nobody: look again now and then.
                await readable(subscription.fileno(), LOOK_AGAIN if left is None else min(left, LOOK_AGAIN))

    async def processed(self) -> Any:
        """Wait without a limit."""
        return await self.wait()


class AsyncBatch:
    """As `sent.Batch`; the commit happens on leaving the block."""

    def __init__(self, batch: Batch, connection: Any = None) -> None:
        """Made by `AsyncNode.batch`."""
        self._batch, self._connection = batch, connection

    def send(self, value: Any = b"", **options: Unpack[SendOptions]) -> None:
        """As `Batch.send`. Writes large bodies at once, which holds up the loop: better `AsyncNode.send` those."""
        self._batch.send(value, **options)

    async def __aenter__(self) -> Self:
        self._batch.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is None:
            await asyncio.to_thread(self._batch.__exit__, kind, error, trace)
        elif is_async(self._connection):
            await self._batch.leave(error)
        else:  # a blocking one is used where its owner uses it
            self._batch.__exit__(kind, error, trace)


class AsyncNode:
    """A node for asyncio: ``async with dropr_core.aopen("shop.yaml") as node``."""

    def __init__(self, config: NodeConfig | Path | str) -> None:
        self._config = config
        self._node: Node | None = None
        self._endings = Endings()

    @property
    def node(self) -> Node:
        """The node beneath; its methods block."""
        if self._node is None:
            raise Closed("use it as `async with dropr_core.aopen(...) as node`")
        return self._node

    async def send(
        self,
        value: Any = b"",
        *,
        timeout: Duration = 0.0,  # noqa: ASYNC109 - the same names as Node
        progress: Progress | None = None,
        connection: Any = None,
        **options: Unpack[SendOptions],
    ) -> AsyncSent:
        """As `Node.send`. ``connection``: one for asyncio is awaited, a blocking one is used here and now."""
        node = self.node
        if connection is not None:
            batch = node.batch(connection=connection)
            async with AsyncBatch(batch, connection):
                await to_the_end(batch.add, value, options, progress)
            return AsyncSent(node, batch.sent[0])
        call = partial(node.send, value, timeout=timeout, progress=progress, **options)
        return AsyncSent(node, await asyncio.to_thread(call))

    def batch(self, *, timeout: Duration = 0.0, connection: Any = None) -> AsyncBatch:
        """As `Node.batch`, used with ``async with``."""
        return AsyncBatch(self.node.batch(timeout=timeout, connection=connection), connection)

    async def put(self, value: Any = b"", *, channel: str = DEFAULT_CHANNEL, **options: Unpack[PutOptions]) -> str:
        """As `Node.put`."""
        return await asyncio.to_thread(partial(self.node.put, value, channel=channel, **options))

    async def put_all(
        self, values: Iterable[Any], *, channel: str = DEFAULT_CHANNEL, **options: Unpack[PutOptions]
    ) -> list[str]:
        """As `Node.put_all`; ``values`` is read in a thread."""
        return await asyncio.to_thread(partial(self.node.put_all, values, channel=channel, **options))

    async def find(self, message_id: MessageRef) -> AsyncSent | None:
        """As `Node.find`."""
        sent = await asyncio.to_thread(self.node.find, message_id)
        return None if sent is None else AsyncSent(self.node, sent)

    async def status(self, message_id: MessageRef) -> MessageStatus | None:
        """As `Node.status`."""
        return await asyncio.to_thread(self.node.status, message_id)

    def receive(
        self,
        *channels: str,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,
        prefetch: int | None = None,
        on_error: OnError = "raise",
    ) -> AsyncGenerator[AsyncReceived, None]:
        """As `Node.receive`: leaving the body acknowledges, abandoning the loop gives back."""
        runtime = self.node.runtime
        return receive_each(*singles(runtime, channels, prefetch, limit, wait, timeout, on_error), self._endings)

    def receive_batches(
        self,
        *channels: str,
        size: int = 500,
        limit: int | None = None,
        wait: Duration | None = None,
        timeout: Duration | None = None,
    ) -> AsyncGenerator[list[AsyncReceived], None]:
        """As `Node.receive_batches`; one of a batch can be settled by itself, awaited."""
        return receive_batches(*batches(self.node.runtime, channels, size, limit, wait, timeout), self._endings)

    def on(self, *channels: str) -> "Callable[[F], F]":
        """As `Node.on`."""
        return self.node.on(*channels)

    async def handlers(self, *modules: str) -> tuple[str, ...]:
        """As `Node.handlers`; importing is done in a thread."""
        return await asyncio.to_thread(self.node.handlers, *modules)

    async def work(self, wait: Duration | None = None, timeout: Duration | None = None) -> int:  # noqa: ASYNC109
        """As `Node.work`: `async` functions are awaited on this event loop, others are called in a thread. Several may
        be awaited at once.
        """
        handlers, count = self.node.registered, 0
        async for received in self.receive(*handlers.channels, wait=wait, timeout=timeout):
            await handlers.handle_async(received.blocking())
            count += 1
        return count

    async def publish(self, topic: str, value: Any = b"", **options: Unpack[PutOptions]) -> str:
        """As `Node.publish`."""
        return await asyncio.to_thread(partial(self.node.publish, topic, value, **options))

    async def subscribe(self, topic: str, name: str, at: str | None = None) -> str:
        """As `Node.subscribe`."""
        return await asyncio.to_thread(self.node.subscribe, topic, name, at)

    async def unsubscribe(self, topic: str, name: str, at: str | None = None) -> int:
        """As `Node.unsubscribe`."""
        return await asyncio.to_thread(self.node.unsubscribe, topic, name, at)

    async def pause(self, channel: str, seconds: Duration | None = None, reason: str = "") -> None:
        """As `Node.pause`."""
        await asyncio.to_thread(self.node.pause, channel, seconds, reason)

    async def unpause(self, channel: str) -> bool:
        """As `Node.unpause`."""
        return await asyncio.to_thread(self.node.unpause, channel)

    async def close(self) -> None:
        """As `Node.close`."""
        node, self._node = self._node, None
        if node is not None:
            try:
                await self._endings.wait()
            finally:
                await to_the_end(node.close)

    async def __aenter__(self) -> Self:
        opened: list[Node] = []
        try:
            await to_the_end(lambda: opened.append(Node.open(self._config)))
        except asyncio.CancelledError:
            for node in opened:  # nobody will leave a block that was never entered
                await to_the_end(node.close)
            raise
        (self._node,) = opened
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
