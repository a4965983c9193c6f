"""The doors of one gateway: who comes in, how many, and how they end.

Owns listening, the limits on connections, the task of each connection, and draining. Must not know dialects.
"""

import asyncio
import logging
import os
import socket
import ssl
from pathlib import Path
from typing import Any

from dropr_core.config.schema import GatewayConfig
from dropr_core.contracts.gateway import Gateway
from dropr_core.errors import DroprError, PluginError
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.line import StreamLine
from dropr_core.gateway.listening import addresses_of
from dropr_core.system.address import BACKLOG, Address, bind, tls_of
from dropr_core.system.loading import unforked


class Door:
    """Of one gateway, at all its addresses."""

    def __init__(self, hub: Hub, config: GatewayConfig, gateway: Gateway, directory: Path, log: logging.Logger) -> None:
        """``directory``: what paths in URLs are relative to. Raises ConfigError for addresses that may not be."""
        self.name, self.gateway = config.name, gateway
        self._hub, self._config, self._directory, self._log = hub, config, directory, log
        self.addresses = addresses_of(config, gateway)
        self._servers: list[asyncio.Server] = []
        self._webs: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.Event] = []
        self._paths: list[str] = []
        self._open: dict[asyncio.Task[None], tuple[StreamLine, NodeDesk]] = {}
        self._full = False
        self._budget = Budget(config.max_bytes)
        self._desk = NodeDesk(hub, f"gateway {config.name}", self._budget, large=gateway.large)
        self.urls: list[str] = []

    async def open(self) -> None:
        """Listen everywhere. Raises Unreachable."""
        for address in self.addresses:
            if not address.local and not self.gateway.authenticates:
                self._log.warning(
                    "%s: %s is open to everybody who can reach it, for `insecure: true` says so: anybody can put and "
                    "take messages there", self.name, address.url,
                )  # fmt: skip
            bound, tls = bind(address), tls_of(address, self._directory)
            self.urls.append(address.at(bound))
            if address.scheme == "unix":
                self._paths.append(address.path)
            if address.web:
                self._serve_web(bound, tls)
            else:
                await self._listen(address, bound, tls)

    def _serve_web(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            with unforked:
                from dropr_core.system.web import WebDoor, serve
        except ImportError as error:
            bound.close()
            raise PluginError(
                f"{self.urls[-1]} needs uvicorn and httptools ({error}); run: pip install uvicorn httptools"
            ) from error

        end = asyncio.Event()
        self._ends.append(end)
        door = WebDoor(
            self.gateway.application(self._desk), bound, tls, max_connections=self._config.max_connections,
            place=f"{self.name}: {self.urls[-1]}", log=self._log,
        )  # fmt: skip
        self._webs.append(asyncio.create_task(serve(door, end)))

    async def _listen(self, address: Address, bound: socket.socket, tls: object) -> None:
        loop = asyncio.get_running_loop()
        secure = address.local or address.scheme == "tls"

        def line() -> StreamLine:
            made = StreamLine(self._hub.stopping, self._arrived, self._budget)
            made.secure = secure
            return made

        options: dict[str, Any] = {"sock": bound, "backlog": BACKLOG}
        if tls is not None:
            options |= {"ssl": tls, "ssl_handshake_timeout": 30.0}
        if address.scheme == "unix":
            self._servers.append(await loop.create_unix_server(line, **options))
        else:
            self._servers.append(await loop.create_server(line, **options))

    def _arrived(self, line: StreamLine) -> None:
        full = len(self._open) >= self._config.max_connections
        if full != self._full:
            self._full = full
            if full:
                self._log.warning(
                    "%s: %d connections are open, which is its limit (max_connections); more are closed at once",
                    self.name, len(self._open),
                )  # fmt: skip
            else:
                self._log.info("%s: there is room for connections again", self.name)
        if full or self._hub.stopping.is_set():
            line.abort()
            return
        desk = NodeDesk(self._hub, line.peer, self._budget, large=self.gateway.large)
        line.on_end = desk.hurry
        task = asyncio.get_running_loop().create_task(self._serve(line, desk))
        self._open[task] = line, desk
        task.add_done_callback(self._open.pop)

    async def _serve(self, line: StreamLine, desk: NodeDesk) -> None:
        log, what = self._log, f"{self.name}: the connection of {line.peer}"
        try:
            await self.gateway.serve(line, desk)
        except ConnectionError as error:
            log.debug("%s ended: %s", what, error)
        except DroprError as error:
            log.warning("%s ended: %s", what, error)
        except asyncio.CancelledError:
            log.info("%s was cut off, for the gateway ends", what)
        except Exception:
            log.exception("%s ended by a fault in the gateway; tell its author", what)
        finally:
            line.close()
            await desk.close(counted=not self._hub.stopping.is_set())

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def stop_listening(self) -> None:
        """Nobody new comes in."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            try:
                os.unlink(path)  # noqa: PTH108 - it is no Path
            except OSError:
                continue
        for end in self._ends:
            end.set()

    async def drain(self, patience: float) -> None:
        """Let connections end; those that hold nothing and say nothing are ended. Cut off what is left."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self._open and (left := until - loop.time()) > 0:
            for line, desk in self._open.values():
                if line.waits and not desk.busy:
                    line.end_reading()
            await asyncio.wait(list(self._open), timeout=min(left, 0.25), return_when=asyncio.FIRST_COMPLETED)
        if self._webs:
            await asyncio.wait(self._webs, timeout=max(0.5, until - loop.time()))
        for task in [*self._open, *self._webs]:
            task.cancel()
        for line, _ in list(self._open.values()):
            line.abort()
        if rest := [*self._open, *self._webs]:
            await asyncio.wait(rest)

    async def close(self) -> None:
        """After `drain`."""
        await self._desk.close(counted=False)
        await self.gateway.close()
