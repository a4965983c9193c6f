"""ASGI applications of gateways under uvicorn.

Owns how uvicorn is run inside of our event loop, and its limits. uvicorn belongs to the plugins that need it, not to
core: it is imported here and only when a gateway listens at http:// or https://.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from dropr_core.contracts.gateway import ASGIApplication
from dropr_core.errors import PluginError
from dropr_core.gateway.address import Address

IDLE = 75
"""Seconds that a connection stays open between requests."""


async def serve(
    application: ASGIApplication,
    bound: socket.socket,
    address: Address,
    directory: Path,
    connections: int,
    end: asyncio.Event,
    log: logging.Logger,
) -> None:
    """Answer at a socket until ``end`` is set and what is under way has ended. Raises PluginError without uvicorn."""
    try:
        import uvicorn
    except ImportError as error:
        raise PluginError(f"{address.url} needs uvicorn ({error}); run: pip install uvicorn") from error

    class Server(uvicorn.Server):
        """Signals are ours."""

        def install_signal_handlers(self) -> None:
            """Of older versions."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Of newer ones."""
            yield

    options = {name: str(directory / value) for name, value in address.options.items()}
    config = uvicorn.Config(
        application, loop="none", lifespan="off", log_config=None, log_level=logging.WARNING, access_log=False,
        interface="asgi3", limit_concurrency=connections, timeout_keep_alive=IDLE, server_header=False,
        proxy_headers=False, ssl_certfile=options.get("cert"), ssl_keyfile=options.get("key"),
        ssl_ca_certs=options.get("ca"),
    )  # fmt: skip
    server = Server(config)

    async def stop() -> None:
        await end.wait()
        server.should_exit = True

    stopper = asyncio.create_task(stop())
    try:
        await server.serve(sockets=[bound])
    except SystemExit as error:  # uvicorn's way to say that it cannot start
        log.error("%s cannot be served: uvicorn gave up (%s)", address.url, error)
    finally:
        stopper.cancel()
        bound.close()
