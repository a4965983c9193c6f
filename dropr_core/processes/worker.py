"""The worker: handlers around consumers. Killing it at any moment loses nothing.

Owns the process and its threads: claim, call the channel's handler, settle. What an answer means is in
handler_call.py; what a failing store does to it in settling.py and store_trouble.py. Must not know peers or transports.
"""

import contextlib
import logging
import os
import select
import threading
import time
from pathlib import Path

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.consumer import Consumer
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import WRITE, StoreTrouble
from dropr_core.config.node import NodeConfig
from dropr_core.contracts.handler import Handler
from dropr_core.errors import ConfigError, LeaseLost
from dropr_core.plugin.registry import create
from dropr_core.processes.handler_call import call
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.settling import Settler
from dropr_core.system.exit_codes import Exit
from dropr_core.system.presence import Presence

CLAIMS = (WRITE, "claims")
"""What rests when the store gives nothing out."""


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:  # noqa: ARG001
    """Call handlers for arriving messages until told to stop. Returns an exit code.

    SIGHUP asks for a fresh start, so that changed handlers are imported anew.
    """
    heart = heart or Heartbeat.from_environment()
    log = logging.getLogger("dropr.worker")
    with Runtime.open(config) as runtime, MainLoop(heart) as loop:
        workers = WorkerThreads(runtime, loop, log)
        presence = Presence(runtime.run_directory, "worker")
        try:
            workers.start()
            presence.announce({"channels": workers.channels})
            heart.ready()
            log.info("worker of %s handles %s", runtime.name, ", ".join(workers.channels))
            recycling = RecycleLimits(config.angel.recycle_after, config.angel.max_memory)
            recycle = ""
            while not (loop.stopping or loop.reload or recycle):
                loop.run_posts()
                if workers.broken is not None:
                    raise workers.broken
                recycle = recycling.due(workers.handled)
                if not recycle:
                    loop.sleep(None)
            workers.stop(config.worker.drain)
        finally:
            presence.withdraw()
            workers.close()
        if loop.stopping:
            log.info("worker stopped after %d messages", workers.handled)
            return Exit.OK
        log.info("asks for a fresh start: %s", recycle or "told to reload")
        return Exit.RECYCLE


class WorkerThreads:
    """The threads of one worker; each has a consumer of its own."""

    def __init__(self, runtime: Runtime, loop: MainLoop, log: logging.Logger) -> None:
        self._runtime, self._loop, self._log = runtime, loop, log
        context = runtime.context(log)
        self._handlers: dict[str, Handler] = {}
        for name, channel in runtime.config.channels.items():
            if channel.handler is not None:
                made, place = channel.handler, f"channels.{name}.handler"
                self._handlers[name] = create("handler", made.use, made.options, context, place, runtime.config.where)
        if not self._handlers:
            raise ConfigError([f"node {runtime.name}: no channel has a handler, so a worker has nothing to do"])
        self.channels = tuple(self._handlers)
        self.handled = 0
        self.broken: BaseException | None = None
        """What ended one of the threads, if anything did."""
        self._stopping = threading.Event()
        self._trouble = StoreTrouble(runtime.clock, runtime.event, log)
        self._settler = Settler(self._trouble, runtime.clock, self._stopping, log)
        self._one_tries = threading.Lock()
        """Held by the one thread that asks a store which has failed whether it works again."""
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._threads: list[threading.Thread] = []
        self._consumers: list[Consumer] = []
        self._recycle_after = runtime.config.angel.recycle_after

    def start(self) -> None:
        """Begin to work."""
        for number in range(self._runtime.config.worker.threads):
            consumer = Consumer(
                self._runtime, self.channels, on_error="continue", label=f"worker {os.getpid()}.{number}"
            )
            self._consumers.append(consumer)
            thread = threading.Thread(target=self._work, args=(consumer,), name=f"dropr-worker-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, consumer: Consumer) -> None:
        poll = select.poll()
        poll.register(consumer.fileno(), select.POLLIN)
        poll.register(self._reader, select.POLLIN)
        while not self._stopping.is_set():
            try:
                found = self._claim(consumer)
                if found is None:
                    self._stopping.wait(max(0.0, self._trouble.until(CLAIMS) - self._runtime.clock.now()))
                elif isinstance(found, float):
                    poll.poll(int(found * 1000) + 1)
                else:
                    self._handle(found)
            except BaseException as error:
                # A worker without threads would look alive and do nothing.
                self.broken = error
                self._loop.wake()
                return

    def _claim(self, consumer: Consumer) -> Received | float | None:
        """A message; or the seconds after which to look again at the latest; or None while the store fails."""
        with self._one_tries if self._trouble.fails(CLAIMS) else contextlib.nullcontext():
            if self._trouble.rests(CLAIMS):
                return None
            with self._trouble.guard(CLAIMS):
                found = consumer.claim(1)
                if not found:
                    consumer.prepare()
                    found = consumer.claim(1)
                return found[0] if found else consumer.patience(None)
        return None

    def _handle(self, received: Received) -> None:
        started = time.monotonic()
        try:
            self._settler.settle(received, call(self._handlers[received.channel], received, self._log))
        except LeaseLost as error:
            self._log.warning("%s", error)
        took = time.monotonic() - started
        self._log.debug("%s on %s took %.3f s", received.id, received.channel, took)
        self.handled += 1
        if self._recycle_after and self.handled % self._recycle_after == 0:
            self._loop.wake()

    def stop(self, drain: float) -> None:
        """Lease nothing more; give what is being handled ``drain`` seconds to end."""
        self._stopping.set()
        self._log.info("takes nothing more; what is at hand has %.0f s to end", drain)
        os.write(self._writer, b"\0")
        deadline = time.monotonic() + drain
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(timeout=min(1.0, max(0.0, deadline - time.monotonic())))
                self._loop.beat()
        if any(thread.is_alive() for thread in self._threads):
            self._log.warning("some handlers did not end within %.0f s: their messages go back, not counted", drain)

    def close(self) -> None:
        """Give back what is leased, close handlers; safe twice."""
        self._stopping.set()
        for consumer in self._consumers:
            with self._trouble.guard((WRITE, "leases")):  # its lock goes with it, and with the lock its leases
                consumer.close()
        self._consumers.clear()
        for channel, handler in self._handlers.items():
            try:
                handler.close()
            except Exception:
                self._log.exception("the handler of %s raised in close", channel)
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)
        self._reader = self._writer = -1
