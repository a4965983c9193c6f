"""The worker: handlers around consumers. Killing it at any moment loses nothing.

Owns one process: its handlers, the threads and the event loop that call them, and when it asks for a fresh start. What
an answer means is in handler_call.py, how it is written down in settling.py. Must not know peers or transports.
"""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import StoreTrouble
from dropr_core.api.subscriptions import Subscriptions
from dropr_core.builtin.handlers.functions import load_marked
from dropr_core.builtin.handlers.python import of_function
from dropr_core.config.node import NodeConfig
from dropr_core.config.targets import search
from dropr_core.contracts.context import Context
from dropr_core.contracts.handler import AsyncHandler, Handler
from dropr_core.contracts.storage import Ack, Settlement
from dropr_core.errors import ConfigError, DroprError, LeaseLost, StoreError
from dropr_core.plugin.registry import create
from dropr_core.processes.at_work import AtWork
from dropr_core.processes.crew import Crew
from dropr_core.processes.handler_tasks import HandlerTasks
from dropr_core.processes.handler_threads import HandlerThreads
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.message_source import MessageSource
from dropr_core.processes.settling import Settler
from dropr_core.processes.topic_thread import TopicThread
from dropr_core.schedules.definitions import Definitions
from dropr_core.system.exit_codes import Exit
from dropr_core.system.log_fields import about
from dropr_core.system.os_errors import store_error
from dropr_core.system.presence import Presence

LAST = 1.0
"""Seconds that functions have to come back, when what they waited for was closed."""


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:  # noqa: ARG001
    """Call handlers for arriving messages until told to stop. Returns an exit code.

    SIGHUP asks for a fresh start, so that changed handlers are imported anew.
    """
    heart = heart or Heartbeat.from_environment()
    log = logging.getLogger("dropr.worker")
    with Runtime.open(config) as runtime, MainLoop(heart) as loop:
        workers = Workers(runtime, loop, log)
        copying = TopicThread(runtime, log)
        presence = Presence(runtime.run_directory, "worker")
        report = Report(presence, workers, heart.name or "worker")
        try:
            workers.start()
            copying.start()
            report.tell()
            heart.ready()
            log.info("worker of %s handles %s", runtime.name, ", ".join(workers.channels))
            recycling = RecycleLimits(config.angel.recycle_after, config.angel.max_memory)
            recycle = ""
            while not (loop.stopping or loop.reload or recycle):
                loop.run_posts()
                if workers.broken is not None:
                    raise workers.broken
                pause = workers.watch()
                report.tell()
                recycle = workers.stuck or recycling.due(workers.handled)
                if not recycle:
                    loop.sleep(pause)
            copying.stop()
            if not workers.stop(config.worker.drain):
                # A thread cannot be ended, and its message must not be with two: it is free when this process is gone.
                workers.withdraw()
                log.warning("ends in the middle of a handler, %d messages were handled before", workers.handled)
                presence.withdraw()
                logging.shutdown()
                os._exit(Exit.OK if loop.stopping else Exit.RECYCLE)
        finally:
            presence.withdraw()
            copying.stop()
            workers.close()
        if loop.stopping:
            log.info("worker stopped after %d messages", workers.handled)
            return Exit.OK
        log.info("asks for a fresh start: %s", recycle or "told to reload")
        return Exit.RECYCLE


def _added_webhooks(runtime: Runtime, context: Context, log: logging.Logger) -> dict[str, Handler]:
    """By channel the webhooks of schedules that were added on the command line, as they are now. One that cannot be
    made costs itself alone: who added it must not stop the others.
    """
    made = dict[str, Handler]()
    try:
        schedules, _ = Definitions(runtime.config, runtime.documents).all()
    except StoreError as error:
        log.error("webhooks of added schedules are not called: %s", error)
        return made
    for name, one in schedules.items():
        if one.webhook is not None and name not in runtime.config.schedules:
            try:
                made[one.target] = create("handler", one.webhook.use, one.webhook.options, context, f"schedule {name}")
            except DroprError as error:
                log.error("the webhook of schedule %s is not called: %s", name, error)
    return made


def _timeout(config: NodeConfig, channel: str) -> float | None:
    known = config.channels.get(channel)
    return None if known is None else known.timeout


class Report:
    """What `dropr status` shows of this process, kept up to date while it is at work."""

    def __init__(self, presence: Presence, workers: "Workers", name: str) -> None:
        self._presence, self._workers, self._name = presence, workers, name
        self._told: dict[str, Any] = {}

    def tell(self) -> None:
        """Announce what changed. Raises StoreError only the first time: later a full disk costs the report alone."""
        report = {"name": self._name, **self._workers.report()}
        if report == self._told:
            return
        try:
            self._presence.announce(report)
        except OSError as error:
            if not self._told:
                raise store_error(error, self._presence.path) from error
        self._told = report


class Workers:
    """All that works in one worker process: threads for handlers, and an event loop for those that are async."""

    def __init__(self, runtime: Runtime, loop: MainLoop, log: logging.Logger) -> None:
        """Make the handlers. Raises ConfigError if there is none, or one cannot be made."""
        self._runtime, self._loop, self._log = runtime, loop, log
        context = runtime.context(log)
        self._handlers: dict[str, Handler] = {}
        for name, channel in runtime.config.channels.items():
            if channel.handler is not None:
                made, place = channel.handler, f"channels.{name}.handler"
                self._handlers[name] = create("handler", made.use, made.options, context, place, runtime.config.where)
        self._handlers |= _added_webhooks(runtime, context, log)
        search(None)
        for name, function in load_marked(runtime.config.handlers).items():
            if name in self._handlers:
                problem = (
                    f"handlers: channel {name} has a handler of its own as well (channels.{name}.handler); keep one"
                )
                raise ConfigError([problem])
            self._handlers[name] = of_function(function, f"the handler of {name}")
        if not self._handlers and not Subscriptions(runtime).topics():
            what = "no channel has a handler and there are no topics, so a worker has nothing to do"
            raise ConfigError([f"node {runtime.name}: {what}"])
        self.channels = tuple(self._handlers)
        self.handled = 0
        self.broken: BaseException | None = None
        """What ended one of the threads, if anything did."""
        self._says_each = log.isEnabledFor(logging.DEBUG)
        self._counting = threading.Lock()
        self._stopping = threading.Event()
        self._given_up = False
        self._trouble = StoreTrouble(runtime.clock, runtime.event, log)
        self._settler = Settler(self._trouble, runtime.clock, self._stopping, log)
        self._timeouts = {name: _timeout(runtime.config, name) for name in self._handlers}
        self._at_work = AtWork(self._timeouts, loop.wake, log)
        self._next_look: float | None = None
        self._sources: list[MessageSource] = []
        self._threads: HandlerThreads | None = None
        self._tasks: HandlerTasks | None = None
        self._recycle_after = runtime.config.angel.recycle_after

    @property
    def stuck(self) -> str:
        """Which handler does not end though its time is over; empty if none."""
        return self._at_work.stuck

    def start(self) -> None:
        """Begin to work. Raises StoreError."""
        settings = self._runtime.config.worker
        asynchronous = {name: one for name, one in self._handlers.items() if isinstance(one, AsyncHandler)}
        others = {name: one for name, one in self._handlers.items() if name not in asynchronous}
        at_work, done, broken, log = self._at_work, self._done, self._broke, self._log
        if others:
            source = self._source(others, "worker")
            crew = Crew(settings.threads, at_work, source.holds, source.waits, source.stopped)
            self._threads = HandlerThreads(settings.threads, others, at_work, crew, source.take, done, broken, log)
            self._threads.start()
        if asynchronous:
            take = self._source(asynchronous, "worker.tasks").take
            self._tasks = HandlerTasks(settings.tasks, asynchronous, self._timeouts, at_work, take, done, broken, log)
            self._tasks.start()

    def _source(self, handlers: dict[str, Any], label: str) -> MessageSource:
        source = MessageSource(self._runtime, tuple(handlers), self._trouble, self._log, f"{label} {os.getpid()}")
        self._sources.append(source)
        return source

    def _broke(self, error: BaseException) -> None:
        self.broken = error
        self._loop.wake()

    def _done(self, received: Received, change: Settlement, took: float) -> None:
        if self._given_up and not isinstance(change, Ack):
            return  # it was broken off, by the end of its program perhaps: it goes back as if it had not been tried
        try:
            self._settler.settle(received, change)
        except LeaseLost as error:
            self._log.warning("%s", error)
        if self._says_each:
            self._log.debug("%s on %s took %.3f s", received.id, received.channel, took,
                            extra=about(message=received.id, channel=received.channel))  # fmt: skip
        with self._counting:
            self.handled += 1
            worn = self._recycle_after is not None and self.handled >= self._recycle_after
        if worn:  # no thread takes another message, however long the main loop needs to notice
            for source in self._sources:
                source.stop()
            self._loop.wake()

    def watch(self) -> float | None:
        """Say what takes too long. The seconds until that is to be asked again; None: not before work begins."""
        if not self._at_work.watched:
            self._next_look = None
            return None
        now, every = time.monotonic(), self._at_work.every
        if self._next_look is None:  # work has just begun: most of it is over before anybody could look
            self._next_look = now + every
        elif now >= self._next_look:
            self._at_work.look(None if self._tasks is None else self._tasks.look(now))
            self._next_look = now + every
        return self._next_look - now

    def report(self) -> dict[str, Any]:
        """What this process is at, for who looks from outside: `longest` has ``since`` in seconds since the epoch."""
        settings, found = self._runtime.config.worker, self._at_work.now() if self._next_look is not None else []
        longest = None
        if found:
            received, since = found[0].received, time.time() - (time.monotonic() - found[0].started)
            longest = {"id": received.id, "channel": received.channel, "since": round(since, 1)}
        return {
            "channels": self.channels,
            "threads": settings.threads if self._threads is not None else 0,
            "tasks": settings.tasks if self._tasks is not None else 0,
            "at_work": len(found),
            "longest": longest,
        }

    def stop(self, drain: float) -> bool:
        """Lease nothing more; give what is being handled ``drain`` seconds to end; then cancel and close what can be.
        Whether all of it ended.
        """
        self._stopping.set()
        self._log.info("takes nothing more; what is at hand has %.0f s to end", drain)
        for source in self._sources:
            source.stop()
        deadline = time.monotonic() + drain
        parts = [part for part in (self._threads, self._tasks) if part is not None]
        while not (ended := all([part.ended(0.05) for part in parts])) and time.monotonic() < deadline:  # noqa: C419
            self._loop.beat()
            self.watch()
        if self._tasks is not None:
            ended = self._tasks.close() and ended
        if not ended:
            self._given_up = True
            self._log.warning("some handlers did not end within %.0f s: their messages go back, not counted", drain)
            self.close_handlers()  # programs that they run are ended, and with them the calls that wait for those
            ended = all([part.ended(LAST) for part in parts])  # noqa: C419
        return ended

    def withdraw(self) -> None:
        """This process ends now, in the middle of handlers. Those whose time is not over have made no attempt."""
        untried = [running.received for running in self._at_work.now() if not running.overdue]
        untried += [] if self._tasks is None else self._tasks.not_begun()
        for source in self._sources:
            for received in untried:
                source.withdraw(received)

    def close(self) -> None:
        """Give back what is leased, close handlers; safe twice."""
        self._stopping.set()
        for source in self._sources:
            source.stop()
        if self._tasks is not None:
            self._tasks.close()
        self.close_handlers()  # before their messages are free: what runs for one must not run beside the next try
        for source in self._sources:
            source.close()
        self._sources.clear()

    def close_handlers(self) -> None:
        """Close every handler; safe twice."""
        for channel, handler in self._handlers.items():
            try:
                handler.close()
            except Exception:
                self._log.exception("the handler of %s raised in close", channel)
