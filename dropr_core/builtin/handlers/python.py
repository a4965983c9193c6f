"""The handler ``python``: a function of the user's, by its dotted name.

Owns the import of ``package.module:function``, the checks at start and the event loop for async
functions. Must not know leases or stores.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import attrs

from dropr_core import options as fields
from dropr_core.builtin.handlers.functions import is_async, takes_work, wants_both
from dropr_core.config.targets import check_target, load_target, search
from dropr_core.contracts.handler import AsyncHandler, Handler, Work
from dropr_core.errors import PluginError, UsageError
from dropr_core.hookspecs import hookimpl


def _check_target(text: str) -> None:
    try:
        check_target(text)
    except UsageError:
        raise UsageError(f"{text!r} names no function; write python:package.module:function") from None


@attrs.frozen(kw_only=True)
class Options:
    """Options of the handler ``python``."""

    target: str = fields.option(doc="The function: package.module:function.", check=_check_target)
    path: Path | None = fields.path(
        None, doc="Directory of your code, searched after everything installed.", unset="the current directory"
    )


class PythonHandler(Handler):
    """Calls one function with the `Work`. If it turns out that the result is to be awaited, it is, on an event loop of
    this handler, while the calling thread waits.
    """

    def __init__(self, function: Callable[[Work], Any]) -> None:
        """Starts nothing."""
        self._function = function
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def handle(self, work: Work) -> Any:
        """Call it, and give back what it returns (awaited, if it is to be awaited)."""
        result = self._function(work)
        return self._await(result) if inspect.isawaitable(result) else result

    def _await(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        coroutine: Coroutine[Any, Any, Any] = run()
        with self._lock:
            if self._closed:
                coroutine.close()
                if inspect.iscoroutine(awaitable):
                    awaitable.close()
                raise PluginError("the handler is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="dropr-handler-loop", daemon=True)
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result()

    def close(self) -> None:
        """Cancel what still runs on the event loop and end it; safe twice."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(5.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5.0)
        if not thread.is_alive():
            loop.close()


class AsyncPythonHandler(PythonHandler, AsyncHandler):
    """Awaits one `async` function with the `Work`, on the event loop of the worker."""

    async def handle_async(self, work: Work) -> Any:
        """Await it, and give back what it returns."""
        return await self._function(work)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def of_function(function: Callable[..., Any], who: str, name: str = "") -> Handler:
    """The handler that calls a function. Raises PluginError if it cannot be called with a message."""
    called = takes_work(_checked(function, who, name), who)
    return AsyncPythonHandler(called) if is_async(called) else PythonHandler(called)


def _checked(function: Any, who: str, name: str) -> Callable[..., Any]:
    name = name or getattr(function, "__qualname__", None) or type(function).__qualname__
    if not callable(function):
        raise PluginError(f"{who}: {name} is a {type(function).__name__} and cannot be called")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        # Called, it would do nothing and look like success.
        raise PluginError(f"{who}: {name} is a generator; return a result instead of yielding")
    with contextlib.suppress(ValueError):  # some functions written in C do not tell
        signature = inspect.signature(function)
        try:
            signature.bind(*[None] * (2 if wants_both(function) else 1))
        except TypeError as error:
            raise PluginError(f"{who}: cannot call {name}{signature} with one argument, the work ({error})") from None
    return function  # type: ignore[no-any-return]


@hookimpl
def dropr_handler(options: Options) -> Handler:
    """The handler ``python``. Raises PluginError if there is no such function, or it cannot be called with the work."""
    search(options.path)
    who = f"handler python:{options.target}"
    return of_function(load_target(options.target, who), who, options.target.partition(":")[2])
