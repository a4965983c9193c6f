"""The gateway runner: doors in foreign dialects onto this node. Killing it at any moment loses nothing.

Owns the process: its event loop, its doors, signals, its report for `dropr status`, and how it drains.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import GatewayConfig
from dropr_core.contracts.gateway import Gateway
from dropr_core.errors import ConfigError
from dropr_core.gateway.door import Door
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.listening import clashes
from dropr_core.plugin.registry import create
from dropr_core.processes.topic_thread import TopicThread
from dropr_core.system.exit_codes import Exit
from dropr_core.system.loading import unforked
from dropr_core.system.os_errors import store_errors
from dropr_core.system.presence import Presence
from dropr_core.system.turns import Turns

SHORTER = 2.0
"""Seconds by which the drain is shorter than the angel's, which kills."""


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:  # noqa: ARG001
    """Serve every gateway of the configuration until told to stop. Returns an exit code.

    SIGHUP asks for a fresh start, so that everything in the file counts. Raises Unreachable if a door cannot open.
    """
    if not config.gateways:
        raise ConfigError([f"node {config.node}: there are no `gateways:`, so a gateway process has nothing to do"])
    heart = heart or Heartbeat.from_environment()
    with Runtime.open(config) as runtime, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(runtime, heart).main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed (`pip install dropr-core[fast]`), else None: asyncio's own."""
    try:
        with unforked:
            import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Process:
    def __init__(self, runtime: Runtime, heart: Heartbeat) -> None:
        self._runtime, self._heart = runtime, heart
        self._log = logging.getLogger("dropr.gateway")
        self._end: asyncio.Future[str] = None  # type: ignore[assignment]
        self._signalled = False

    async def main(self) -> int:
        """Open the doors, wait for the end, drain."""
        runtime, log, config = self._runtime, self._log, self._runtime.config
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish, "")
        loop.add_signal_handler(signal.SIGHUP, self._finish, "told to reload")
        largest = max(one.max_bytes for one in config.gateways.values())
        copying = TopicThread(runtime, log)
        hub = Hub(runtime, loop, log, largest, copying.start)
        presence = Presence(runtime.run_directory, "gateway")
        doors: list[Door] = []
        try:
            for gateway in self._gateways():
                doors.append(Door(hub, *gateway, config.where.directory, log))
            if problems := clashes((door.name, address) for door in doors for address in door.addresses):
                raise ConfigError(problems)
            for door in doors:
                await door.open()
            with store_errors(presence.path):
                presence.announce({"urls": {door.name: door.urls for door in doors}})
            for door in doors:
                log.info("%s of %s listens on %s", door.name, runtime.name, ", ".join(door.urls))
            copying.start()
            self._heart.ready()
            self._beat(loop, RecycleLimits(None, config.angel.max_memory))
            why = await self._end
            if why:
                log.info("asks for a fresh start: %s", why)
        finally:
            presence.withdraw()
            await asyncio.to_thread(copying.stop)
            await _close(doors, hub, max(1.0, config.angel.drain - SHORTER))
        log.info("gateway stopped")
        return Exit.RECYCLE if why else Exit.OK

    def _gateways(self) -> list[tuple[GatewayConfig, Gateway]]:
        config, made = self._runtime.config, list[tuple[GatewayConfig, Gateway]]()
        context = self._runtime.context(self._log)
        for name, one in config.gateways.items():
            gateway = create("gateway", one.plugin, one.options, context, f"gateways.{name}", config.where)
            made.append((one, gateway))
        return made

    def _finish(self, why: str) -> None:
        if not self._end.done():
            self._end.set_result(why)

    def _beat(self, loop: asyncio.AbstractEventLoop, limits: RecycleLimits) -> None:
        """Tell the angel that the loop turns; end with it, and when it is time for a fresh start."""
        heart = self._heart
        lifeline = heart.lifeline

        def orphaned() -> None:
            if heart.orphaned:
                loop.remove_reader(lifeline)  # type: ignore[arg-type]
                self._finish("")

        if lifeline is not None:
            loop.add_reader(lifeline, orphaned)

        turns = Turns()

        def turn() -> None:
            heart.beat()
            turns.asleep(heart.interval)
            if why := limits.due(0):
                self._finish(why)
            loop.call_later(heart.interval, turn)

        turn()


async def _close(doors: list[Door], hub: Hub, patience: float) -> None:
    for door in doors:
        door.stop_listening()
    hub.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*(door.drain(patience) for door in doors))
    for door in doors:
        await door.close()
    await hub.close()
