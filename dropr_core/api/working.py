"""Handlers in a program of the user's: registered at an open node, called one message after the other.

Owns which function handles which channel, and the loop's body. What an answer means is in handler_call.py, as for
`dropr worker`. Must not know processes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import TypeAlias

from dropr_core.api.async_bridge import to_the_end, to_the_end_in
from dropr_core.api.handler_call import call, call_async
from dropr_core.api.received import Received
from dropr_core.builtin.handlers.functions import F, load_marked, on
from dropr_core.builtin.handlers.python import of_function
from dropr_core.config.node import NodeConfig
from dropr_core.config.targets import search
from dropr_core.contracts.context import Context
from dropr_core.contracts.handler import AsyncHandler, Handler
from dropr_core.contracts.storage import Settlement
from dropr_core.errors import ConfigError, DroprError, UsageError
from dropr_core.model.names import check_channel

Settle: TypeAlias = Callable[[Received, Settlement], None]
"""Writes down how a message ended. Raises LeaseLost, StoreError."""


class Handlers:
    """Those of one open node."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._handlers: dict[str, Handler] = {}

    @property
    def channels(self) -> tuple[str, ...]:
        """What is handled. Raises UsageError if nothing is."""
        if not self._handlers:
            raise UsageError('no handler is registered: mark functions with @node.on("channel"), or call node.handlers')
        return tuple(self._handlers)

    def on(self, *channels: str) -> Callable[[F], F]:
        """A decorator that registers a function. Raises BadName, UsageError for a channel that has one, PluginError."""
        mark: Callable[[F], F] = on(*channels)

        def register(function: F) -> F:
            for channel in channels:
                self._add(channel, function)
            return mark(function)

        return register

    def find(self, *modules: str) -> tuple[str, ...]:
        """Register the marked functions of modules; their channels. Raises PluginError, ConfigError, UsageError."""
        search(None)
        found = load_marked(modules)
        for channel, function in found.items():
            self._add(channel, function)
        return tuple(found)

    def _add(self, channel: str, function: Callable[..., object]) -> None:
        if check_channel(channel) in self._handlers:
            raise UsageError(f"channel {channel} has a handler already; one function handles a channel")
        self._handlers[channel] = of_function(function, f"the handler of {channel}")

    def handle(self, received: Received, settle: Settle = Received.apply) -> None:
        """Call the handler of a message and settle it, by ``settle``. Raises LeaseLost, StoreError."""
        settle(received, call(self._handlers[received.channel], received, self._log))

    async def handle_async(
        self,
        received: Received,
        settle: Settle = Received.apply,
        seconds: float | None = None,
        executor: Executor | None = None,
    ) -> None:
        """The same on an event loop. A handler that is cancelled has made no attempt.

        ``seconds``: after which an `async` function is cancelled, and its attempt has failed. ``executor``: for
        functions that are not `async`; None: the event loop's own, which few long calls fill.
        """
        handler = self._handlers[received.channel]
        if not isinstance(handler, AsyncHandler):
            await to_the_end_in(executor, partial(self.handle, received, settle))
            return
        try:
            change = await call_async(handler, received, seconds, self._log)
        except asyncio.CancelledError:
            await to_the_end(received.requeue)
            raise
        await to_the_end(settle, received, change)

    def close(self) -> None:
        """Close all; safe twice."""
        for handler in self._handlers.values():
            handler.close()


def rehearse_handlers(config: NodeConfig, _context: Context) -> Iterator[str]:
    """What `dropr worker` would find wrong with the modules of ``handlers:``, for `dropr check`. Imports them."""
    search(None)
    try:
        for channel, function in load_marked(config.handlers).items():
            known = config.channels.get(channel)
            if known is not None and known.handler is not None:
                yield f"handlers: channel {channel} has another handler (channels.{channel}.handler); keep one"
            of_function(function, f"handlers: {channel}")
    except ConfigError as error:
        yield from error.problems
    except DroprError as error:
        yield str(error)
