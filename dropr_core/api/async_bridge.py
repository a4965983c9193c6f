"""Between the event loop and what blocks.

Owns the waits and how they are cancelled: a call in a thread, a descriptor that becomes readable, what must end. Never
`asyncio.wait_for`: on Python 3.11 it loses a cancellation that comes in the same turn as the result.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def to_the_end(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call in a thread. When cancelled, wait until the call has ended: nothing runs on behind the caller's back.

    For short calls. The cancellation is raised then, whatever the call brought.
    """
    return await to_the_end_in(None, partial(function, *args, **kwargs))


async def to_the_end_in(executor: Executor | None, function: Callable[[], _T]) -> _T:
    """The same in a thread of ``executor`` (None: of the event loop's own), for calls that are long."""
    call = asyncio.get_running_loop().run_in_executor(executor, function)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            with contextlib.suppress(asyncio.CancelledError):  # the first one is raised below
                await asyncio.wait([call])
        if not call.cancelled():
            call.exception()  # looked at: the cancellation goes first
        raise


class Endings:
    """What must have ended before something else is closed. For one event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[None]] = set()

    async def run(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """`to_the_end`, waited for by `wait`."""
        ended = asyncio.get_running_loop().create_future()
        self._running.add(ended)
        try:
            await to_the_end(function, *args, **kwargs)
        finally:
            self._running.discard(ended)
            ended.set_result(None)

    async def wait(self) -> None:
        """Wait for all that runs, and for what the event loop was asked to end already."""
        await asyncio.sleep(0)  # an abandoned generator ends in a task that has not begun yet
        while self._running:
            await asyncio.wait(self._running)


async def readable(fd: int, timeout: float | None) -> None:  # noqa: ASYNC109 - a plain wait
    """Wait until a descriptor can be read, or the time (seconds) has passed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def end() -> None:
        if not ready.done():
            ready.set_result(None)

    timer = None if timeout is None else loop.call_later(timeout, end)
    loop.add_reader(fd, end)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()
