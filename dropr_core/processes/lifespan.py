"""A node inside of a web application (FastAPI, Starlette, Litestar …): it lives as long as the application does.

Owns when it is opened and closed, what is handled meanwhile, and the side that answers peers at a mounted path. No
framework is imported: all of them take what stands here. Must not know requests or pages.
"""

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any

from dropr_core.api.aio import AsyncNode
from dropr_core.api.async_bridge import to_the_end
from dropr_core.builtin.handlers.functions import F, on
from dropr_core.config.node import NodeConfig
from dropr_core.errors import Closed, StoreError, UsageError
from dropr_core.plugin.registry import asgi_application, transport_for
from dropr_core.processes.loop_consumers import LoopConsumers
from dropr_core.processes.server import make_dispatcher
from dropr_core.serving.dispatcher import Dispatcher
from dropr_core.system.presence import Presence

TASKS = 10
"""Messages in hand at once, where nothing is said."""


class Lifespan:
    """Given to an application as its ``lifespan``. Nothing is opened before the application starts, so each process of
    it (``--workers``, ``--reload``, a server that forks) has a node of its own.

        post = dropr_core.Lifespan("shop.yaml")
        app = FastAPI(lifespan=post)
        app.mount("/dropr", post.receiver)          # only if peers shall reach the node here

        @post.on("orders")
        async def pack(order: Order) -> None: ...

        @app.post("/orders")
        async def order(node: Annotated[AsyncNode, Depends(post.node)]) -> ...
    """

    def __init__(
        self,
        config: NodeConfig | Path | str,
        *,
        handlers: Iterable[str] = (),
        tasks: int = TASKS,
        drain: float | None = None,
    ) -> None:
        """``handlers``: modules with functions marked by `dropr_core.on`. ``tasks``: so many messages are in hand at
        once. ``drain``: seconds that they have to end when the application ends; None: ``worker.drain`` of the file.
        """
        if isinstance(handlers, str):
            handlers = (handlers,)
        if tasks < 1:
            raise UsageError(f"tasks: {tasks}: at least one message is in hand at once")
        self._config, self._modules, self._count, self._drain = config, tuple(handlers), tasks, drain
        self._functions: list[tuple[tuple[str, ...], Callable[..., Any]]] = []
        self._node: AsyncNode | None = None
        self._running = False
        self._receiver: Receiver | None = None
        self._log = logging.getLogger("dropr.application")

    # ── what the application uses ────────────────────────────────────────────────────────────────

    async def node(self) -> AsyncNode:
        """The open node; a dependency of FastAPI (``Depends``) and Litestar (``Provide``). Raises Closed."""
        if self._node is None:
            raise Closed("the node is open while the application runs: give it this object as its lifespan")
        return self._node

    def on(self, *channels: str) -> Callable[[F], F]:
        """A decorator: the function handles messages of these channels while the application runs; `async` ones on its
        event loop, others in threads of their own. As `Node.on`. Raises BadName, PluginError.
        """
        mark: Callable[[F], F] = on(*channels)

        def register(function: F) -> F:
            self._functions.append((channels, function))
            return mark(function)

        return register

    @property
    def receiver(self) -> "Receiver":
        """An ASGI application to be mounted: it answers peers, whose URL is that of the mount and a slash."""
        if self._receiver is None:
            self._receiver = Receiver()
        return self._receiver

    # ── what the framework calls ─────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def __call__(self, _application: object = None) -> AsyncGenerator[None, None]:
        """Open, work and close again. May be entered inside of a lifespan of the application's own. Raises ConfigError,
        PluginError, StoreError at the start.
        """
        if self._running:
            raise UsageError("this lifespan runs already: each application takes one of its own")
        self._running = True
        try:
            async with AsyncNode(self._config) as node:
                for channels, function in self._functions:
                    node.on(*channels)(function)
                if self._modules:
                    await node.handlers(*self._modules)
                async with contextlib.AsyncExitStack() as stack:
                    if self._receiver is not None:
                        await stack.enter_async_context(self._receiver.answering(node))
                    if self._functions or self._modules:
                        await stack.enter_async_context(self._handling(node))
                    self._node = node
                    try:
                        yield
                    finally:
                        self._node = None
        finally:
            self._running = False

    @contextlib.asynccontextmanager
    async def _handling(self, node: AsyncNode) -> AsyncGenerator[None, None]:
        runtime = node.node.runtime
        consumers = LoopConsumers(node, self._count, self._log)
        presence = Presence(runtime.run_directory, "worker")
        report = {
            "name": "application", "channels": consumers.channels, "threads": 0, "tasks": self._count, "at_work": 0,
            "longest": None,
        }  # fmt: skip
        with contextlib.suppress(OSError):  # a full disk costs the report alone
            presence.announce(report)
        consumers.start()
        self._log.info("node %s handles %s", runtime.name, ", ".join(consumers.channels))
        try:
            yield
        finally:
            drain = runtime.config.worker.drain if self._drain is None else self._drain
            try:
                await consumers.stop(drain)
            finally:
                presence.withdraw()


class Receiver:
    """Answers peers while a node is open, and 503 before and after: they keep what they have and come again."""

    def __init__(self) -> None:
        self._application: Callable[..., Any] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if self._application is not None:
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b"this node starts or stops; come again\n"})

    @contextlib.asynccontextmanager
    async def answering(self, node: AsyncNode) -> AsyncGenerator[None, None]:
        """Answer for this node inside of the block."""
        runtime, log = node.node.runtime, logging.getLogger("dropr.server")
        dispatcher: Dispatcher = make_dispatcher(runtime, log)
        try:
            self._application = asgi_application(transport_for("http", runtime.config.transports), dispatcher)
            try:
                await to_the_end(runtime.announce)
            except StoreError as error:  # a full disk: peers come by themselves, a little later
                log.warning("peers are not told that this node can be reached again: %s", error)
            yield
        finally:
            self._application = None
            dispatcher.close_waiting()
            await to_the_end(dispatcher.close)
