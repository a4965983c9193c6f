"""Threads that work at the store for an event loop.

Owns `StoreThread`: jobs that came while one turn was under way are done together in the next one, so that what many
connections put or settle at the same time is one commit, while a lone connection waits for one step to the thread, its
commit, and one step back. Must not know what a job does.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from dropr_core.errors import Closed

J = TypeVar("J")


class Job(Generic[J]):
    """Something to do, and who waits for it."""

    __slots__ = ("done", "order", "result")

    def __init__(self, order: J, done: Callable[[Any], None]) -> None:
        """``done`` is called in the event loop with the result, or with the exception."""
        self.order, self.done = order, done
        self.result: Any = None


class StoreThread(Generic[J]):
    """One thread. `submit` belongs to the event loop; ``turn`` is called in the thread with all that waits, and returns
    a result or an exception for each, in the same order.
    """

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, turn: Callable[[list[J]], Sequence[Any]], most: int = 1000
    ) -> None:
        self._loop, self._turn, self._most = loop, turn, most
        self._queue: queue.SimpleQueue[Job[J] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, order: J, done: Callable[[Any], None]) -> None:
        """Have it done; after `close` it fails with Closed."""
        if self._closed:
            self._loop.call_soon(done, Closed("the gateway is closed"))
        else:
            self._queue.put(Job(order, done))

    async def do(self, order: J) -> Any:
        """The result of an order. It is carried out even if whoever asked is cancelled."""
        future = self._loop.create_future()
        self.submit(order, lambda result: settle_future(future, result))
        return await future

    def _run(self) -> None:
        take, take_now = self._queue.get, self._queue.get_nowait
        while True:
            jobs = [take()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < self._most:
                    jobs.append(take_now())
            work = [job for job in jobs if job is not None]
            if work:
                self._do(work)
            if len(work) < len(jobs):
                return

    def _do(self, jobs: list[Job[J]]) -> None:
        try:
            results = self._turn([job.order for job in jobs])
        except BaseException as error:  # whoever waits must hear of it, and the thread goes on
            results = [error] * len(jobs)
        for job, result in zip(jobs, results, strict=True):
            job.result = result
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(_tell, self._loop, jobs)

    def close(self) -> None:
        """Do what was submitted before, then end. Safe twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()


def _tell(loop: asyncio.AbstractEventLoop, jobs: list[Job[J]]) -> None:
    for job in jobs:
        try:
            job.done(job.result)
        except Exception as error:  # a fault of one must not keep the others waiting for ever
            text = "what was done at the store could not be told to who had asked for it"
            loop.call_exception_handler({"message": text, "exception": error})


def settle_future(future: "asyncio.Future[Any]", result: Any) -> None:
    """Give a future its result, or the exception that it is; nothing if nobody waits any more."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def call_each(orders: Sequence[Callable[[], Any]]) -> list[Any]:
    """A turn for orders that are calls, each by itself."""
    results = []
    for order in orders:
        try:
            results.append(order())
        except Exception as error:
            results.append(error)
    return results
