"""Consumers on the event loop of a program that is not ours: a web application that handles messages as well.

Owns the tasks that receive, the threads for handlers that are no coroutines, and how both end. What is not in hand
stays in the store, so a slow handler fills no memory. Must not know who runs the event loop.
"""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from dropr_core.api.aio import AsyncNode
from dropr_core.api.async_bridge import to_the_end
from dropr_core.api.store_trouble import READ, StoreTrouble
from dropr_core.errors import LeaseLost, StoreError
from dropr_core.processes.settling import Settler

THING = (READ, "receive")
"""What fails when no message can be taken from the store."""


class LoopConsumers:
    """So many messages are in hand at once, each in a task of its own. For one event loop."""

    def __init__(self, node: AsyncNode, count: int, log: logging.Logger) -> None:
        """``node``: open, with its handlers registered; closed by whoever opened it."""
        runtime = node.node.runtime
        self._node, self._log = node, log
        self._handlers = node.node.registered
        self.channels = self._handlers.channels
        self._timeouts = {name: one.timeout for name, one in runtime.config.channels.items()}
        self._trouble = StoreTrouble(runtime.clock, runtime.event, log)
        self._clock = runtime.clock
        self._given_up = threading.Event()
        self._settler = Settler(self._trouble, runtime.clock, self._given_up, log)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="dropr-handler")
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._busy: set[asyncio.Task[None]] = set()
        """Those with a message in hand."""
        self._stopping = False

    def start(self) -> None:
        """Begin to receive."""
        self._tasks = [asyncio.create_task(self._work(), name=f"dropr-{number}") for number in range(self._count)]

    async def stop(self, drain: float) -> None:
        """Take nothing more; what is in hand has ``drain`` seconds to end. Then coroutines are cancelled, and their
        messages go back; a function in a thread cannot be stopped and is waited for.
        """
        self._stopping = True
        for task in self._tasks:
            if task not in self._busy:
                task.cancel()
        if self._busy:
            self._log.info("takes nothing more; what is at hand has %.0f s to end", drain)
            await asyncio.wait(self._busy, timeout=drain)
        self._given_up.set()
        if self._busy:
            self._log.warning("some handlers did not end within %.0f s: their messages go back, not counted", drain)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await to_the_end(partial(self._threads.shutdown, wait=True))

    async def _work(self) -> None:
        """Handle messages until told to stop; a store that fails is tried again."""
        while not self._stopping:
            try:
                await self._receive()
            except LeaseLost as error:
                self._log.warning("%s", error)
            except (StoreError, OSError) as error:
                self._trouble.failed(THING, error)
                await asyncio.sleep(max(0.05, self._trouble.until(THING) - self._clock.now()))

    async def _receive(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        async with aclosing(self._node.receive(*self.channels)) as receiving:
            async for received in receiving:
                # No await stands between the message and this mark: who stops us sees one or the other.
                self._busy.add(task)
                try:
                    self._trouble.worked(THING)
                    await self._handlers.handle_async(
                        received.blocking(),
                        self._settler.settle,
                        self._timeouts.get(received.channel),
                        self._threads,
                    )
                finally:
                    self._busy.discard(task)
                if self._stopping:
                    return
