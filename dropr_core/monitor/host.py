"""Where the monitor listens, and the thread in which it answers.

Owns its event loop, its listening sockets, the threads that look at the store for it, and its word in the run
directory. Whatever goes wrong here is said in the log and hurts nobody else: the process that has it goes on.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import MONITOR_SCHEMES
from dropr_core.errors import DroprError, PluginError, Unreachable
from dropr_core.monitor.access import Access, names_of, token_of
from dropr_core.monitor.table import routes_of
from dropr_core.monitor.web import Application
from dropr_core.system.address import Address, bind, read_address, tls_of
from dropr_core.system.loading import unforked
from dropr_core.system.os_errors import store_errors
from dropr_core.system.presence import Presence

CONNECTIONS = 64
"""Most at once, at each address."""
THREADS = 2
"""How many requests look at the store at once, and how many ask without the token."""
AGAIN = 30.0
"""Seconds until an address that could not be had is tried again."""
PATIENCE = 2.0
"""Seconds that requests under way get at the end."""


def rehearse_monitor(config: NodeConfig) -> list[str]:
    """What would keep the monitor of a node from listening, as far as the files say."""
    problems = list[str]()
    if config.monitor.listen:
        try:
            _web_door()
        except PluginError as error:
            problems.append(f"monitor: {error}")
    for index, address in enumerate(addresses_of(config)):
        try:
            tls_of(address, config.where.directory)
        except DroprError as error:
            problems.append(f"monitor.listen.{index}: {error}")
    return problems


def addresses_of(config: NodeConfig) -> list[Address]:
    """Where the monitor listens; what is wrong with it was said when the file was read."""
    found = (read_address(url, MONITOR_SCHEMES) for url in config.monitor.listen)
    return [address for address in found if isinstance(address, Address)]


def _web_door() -> "type[WebDoor]":  # type: ignore[name-defined]  # noqa: F821
    try:
        with unforked:
            from dropr_core.system.web import WebDoor
    except ImportError as error:
        raise PluginError(
            f"the page needs uvicorn and httptools ({error}); run: pip install 'dropr-core[web]'"
        ) from error
    return WebDoor


class MonitorHost:
    """The monitor of one node in one process. Made and closed by one thread; everything else is its own."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._bound: list[tuple[Address, socket.socket]] = []
        self.urls: list[str] = []

    def open(self) -> None:
        """Listen and answer from now on. Raises DroprError (Unreachable, PluginError, ConfigError, StoreError); then
        nothing is open.
        """
        config = self._runtime.config
        _web_door()
        access = Access(token_of(config))
        contexts = [tls_of(address, config.where.directory) for address in addresses_of(config)]
        try:
            for address in addresses_of(config):
                self._bound.append((address, bind(address)))
        except Unreachable:
            self._release()
            raise
        self.urls = [address.at(sock) for address, sock in self._bound]
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(access, contexts, started.set), name="monitor", daemon=True
        )
        self._thread.start()
        started.wait()

    def close(self) -> None:
        """End; safe twice, and where it was never open."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
            thread.join(3 * PATIENCE)
        self._release()

    def _release(self) -> None:
        bound, self._bound = self._bound, []
        for address, sock in bound:
            sock.close()
            if address.scheme == "unix":
                with contextlib.suppress(OSError):
                    os.unlink(address.path)  # noqa: PTH108 - it is no Path
        self.urls = []

    def _run(self, access: Access, contexts: list[object], started: Callable[[], None]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main(access, contexts, started))
        except Exception:
            self._log.exception("monitor: ended by a fault of ours; tell us. Everything else goes on")
        finally:
            started()

    async def _main(self, access: Access, contexts: list[object], started: Callable[[], None]) -> None:
        with unforked:
            from dropr_core.system.web import WebDoor, serve

        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        started()
        threads = ThreadPoolExecutor(THREADS, "monitor")
        open_threads = ThreadPoolExecutor(THREADS, "monitor-open")
        try:
            application = Application(routes_of(self._runtime, self._log), access, threads, open_threads, self._log)
            names = names_of((address for address, _ in self._bound), self._runtime.config.monitor.hosts)
            doors = [
                WebDoor(
                    application.at(None if address.scheme == "unix" else names), sock, context,  # type: ignore[arg-type]
                    max_connections=CONNECTIONS, place=f"monitor: {url}", log=self._log,
                )
                for (address, sock), context, url in zip(self._bound, contexts, self.urls, strict=True)
            ]  # fmt: skip
            serving = [asyncio.create_task(serve(door, self._end)) for door in doors]
            await self._end.wait()
            _, late = await asyncio.wait(serving, timeout=PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
        finally:
            for pool in (threads, open_threads):
                pool.shutdown(wait=False, cancel_futures=True)


class Guest:
    """The monitor within a process that has other work: what it cannot do is said once, and tried again."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log, self._said = runtime, log, ""
        self._host = MonitorHost(runtime, log)
        self._presence = Presence(runtime.run_directory, "monitor")
        self._open = False
        self._ended = threading.Event()
        self._trying: threading.Thread | None = None

    def start(self) -> None:
        """Open it now, or as soon as it can be."""
        if not self._try():
            self._trying = threading.Thread(target=self._again, name="monitor-open", daemon=True)
            self._trying.start()

    def open(self) -> list[str]:
        """Open it now, and where. Raises DroprError."""
        self._host.open()
        self._open = True
        with store_errors(self._presence.path):
            self._presence.announce({"urls": self._host.urls})
        self._log.info("the page of %s is at %s ('dropr dashboard' shows the link)", self._runtime.name,
                       ", ".join(self._host.urls))  # fmt: skip
        return self._host.urls

    def _try(self) -> bool:
        try:
            self.open()
        except (DroprError, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._log.error("the page cannot be shown, everything else goes on (tried again): %s", error)
        return self._open

    def _again(self) -> None:
        while not self._ended.wait(AGAIN):
            if self._try():
                return

    def close(self) -> None:
        """End; safe twice."""
        self._ended.set()
        if self._trying is not None:
            self._trying.join(PATIENCE)
        self._presence.withdraw()
        self._host.close()


def serves_monitor(config: NodeConfig, role: str) -> bool:
    """Whether a process of this role serves the page: the one that `run:` names for it, else the server."""
    return bool(config.monitor.listen) and role == ("monitor" if "monitor" in config.run else "server")
