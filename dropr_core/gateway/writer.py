"""Work at the store for an event loop.

Owns `StoreWorker`: jobs that came in the same step of the loop, or while a turn was under way, are done together in the
next turn, so that what many connections put or settle at the same time is one commit. While the store is quick the loop
does the turn itself, as Redis does with its log before it sleeps: a step to a thread and back would cost more than the
commit. As soon as a turn is slow, a thread does the next ones, and the loop serves whoever does not wait for the store.
Must not know what a job does.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from dropr_core.errors import Closed
from dropr_core.gateway.gathering import Gathering

J = TypeVar("J")

QUICK = 0.002
"""Seconds: a turn at the store that takes longer belongs into a thread. Everybody whose answer is a commit waits for it
in any case; what others notice is a pause like that of a large message.
"""


class Job(Generic[J]):
    """Something to do, and who waits for it."""

    __slots__ = ("begun", "done", "order", "result", "who")

    def __init__(self, order: J, done: Callable[[Any], None], who: object = None) -> None:
        """``done`` is called in the event loop with the result, or with the exception."""
        self.order, self.done, self.who = order, done, who
        self.result: Any = None
        self.begun = False
        """Whether its turn has: an order of which one can ask more may be changed before, never after."""


class StoreWorker(Generic[J]):
    """`submit` and `close` belong to the event loop; ``turn`` is called with all that waits, and returns a result or an
    exception for each, in the same order. There is one turn at a time, but not always in the same thread.
    """

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, turn: Callable[[list[J]], Sequence[Any]], *,
        quick: Callable[[J], bool] | None = None, last: Callable[[J], bool] | None = None, most: int = 1000,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        """``quick``: whether an order may be done in the event loop, by its kind; without it none is. ``last``: orders
        of which more may be asked by those who wait for the others; these have a turn of their own before. ``most``:
        jobs of a turn.
        """
        self._loop, self._turn, self._quick, self._most, self._clock = loop, turn, quick, most, clock
        self._last, self._all = last, False
        self._waiting: list[Job[J]] = []
        self._gathering = Gathering()
        self._planned = self._away = False
        self._expected = 10 * QUICK
        """Seconds that a turn takes: what the last ones took, the slowest of them longest remembered."""
        self._closed = False
        self._idle: asyncio.Future[None] | None = None
        self._queue: queue.SimpleQueue[list[Job[J]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, order: J, done: Callable[[Any], None], who: object = None) -> Job[J]:
        """Have it done; after `close` it fails with Closed. ``who``: the connection that asks for it, if one does."""
        job = Job(order, done, who)
        if who is not None:
            self._gathering.came(who)
        if self._closed:
            job.begun = True
            self._loop.call_soon(done, Closed("the gateway is closed"))
            return job
        self._waiting.append(job)
        if not (self._planned or self._away):
            self._planned = True
            self._loop.call_soon(self._begin)
        return job

    def comes(self, who: object) -> None:
        """A connection asks for something within an order that is or will be submitted."""
        self._gathering.came(who)

    async def do(self, order: J) -> Any:
        """The result of an order. It is carried out even if whoever asked is cancelled."""
        future = self._loop.create_future()
        self.submit(order, lambda result: settle_future(future, result))
        return await future

    # ── turns ────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        if not (self._closed or self._gathering.may_begin(self._clock())):
            self._loop.call_soon(self._begin)
            return
        self._planned = False
        jobs = self._next()
        for job in jobs:
            job.begun = True
        if not jobs:
            self._rest()
        elif self._may_do(jobs):
            self._do(jobs)
            self._told(jobs)
        else:
            self._away = True
            self._queue.put(jobs)

    def _next(self) -> list[Job[J]]:
        """The jobs of this turn."""
        last, jobs = self._last, self._waiting[: self._most]
        if last is not None and not (self._all or self._closed):
            first = [job for job in jobs if not last(job.order)]
            if 0 < len(first) < len(jobs):
                self._all = True  # the next time: nobody is put off twice
                self._waiting = [job for job in jobs if last(job.order)] + self._waiting[len(jobs) :]
                self._gathering.begins({job.who for job in first})
                return first
        self._all = False
        del self._waiting[: len(jobs)]
        self._gathering.begins()
        return jobs

    def _may_do(self, jobs: list[Job[J]]) -> bool:
        quick = self._quick
        return quick is not None and self._expected <= QUICK and all(quick(job.order) for job in jobs)

    def _run(self) -> None:
        while (jobs := self._queue.get()) is not None:
            self._do(jobs)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._came_back, jobs)

    def _came_back(self, jobs: list[Job[J]]) -> None:
        self._away = False
        self._told(jobs)

    def _do(self, jobs: list[Job[J]]) -> None:
        begun = self._clock()
        try:
            results = self._turn([job.order for job in jobs])
        except BaseException as error:  # whoever waits must hear of it, and the work goes on
            results = [error] * len(jobs)
        took = self._clock() - begun
        self._gathering.took(took)
        self._expected = max(took, self._expected + (took - self._expected) / 8)
        for job, result in zip(jobs, results, strict=True):
            job.result = result

    def _told(self, jobs: list[Job[J]]) -> None:
        _tell(self._loop, jobs)
        if self._away or self._planned:
            return
        if self._waiting:
            self._planned = True
            self._loop.call_soon(self._begin)
        else:
            self._rest()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def close(self) -> None:
        """Do what was submitted before, then end. Safe twice."""
        if not self._closed:
            self._closed = True
            if self._waiting or self._planned or self._away:
                self._idle = self._loop.create_future()
                await self._idle
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)


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
