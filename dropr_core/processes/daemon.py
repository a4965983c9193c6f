"""The client daemon: a loop around links. One for each store.

Owns the process: lock, signals, reload, sweeps, its report for `dropr status`. Everything about
peers is in `links.py`; killing this process at any moment loses nothing.
"""

import json
import logging
import os
import time
from pathlib import Path

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import NodeConfig, load
from dropr_core.delivery.links import Links
from dropr_core.delivery.transports import Transports
from dropr_core.errors import ConfigError, DroprError, StoreError
from dropr_core.model import topics
from dropr_core.model.names import format_id
from dropr_core.processes.mainloop import MainLoop
from dropr_core.system.clock import keep_clock
from dropr_core.system.exit_codes import Exit
from dropr_core.system.files import replace_text
from dropr_core.system.locks import FileLock
from dropr_core.system.notifier import LOOK_AGAIN

SWEEP_EVERY = 0.25
"""Seconds at least between two sweeps while there is traffic."""
CARE_EVERY = 300.0
"""Seconds between looks at things that nobody notifies for (retention, the clock file)."""
SHOW_EVERY = 0.5
"""Seconds at least between two words about how far a large body is."""
BODIES_EVERY = 5.0
"""Seconds between looks at large bodies, while there are any; more where a look takes long."""


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:
    """Carry this node's mail until told to stop. Returns an exit code.

    ``path``: the file to load again on SIGHUP. Raises Held if another daemon serves this store.
    """
    heart = heart or Heartbeat.from_environment()
    with Runtime.open(config) as runtime:
        lock = FileLock(config.data / "daemon.lock")
        lock.acquire("dropr daemon")
        try:
            with MainLoop(heart) as loop:
                daemon = Daemon(runtime, loop)
                heart.ready()
                return daemon.run(path)
        finally:
            lock.release()


class Daemon:
    """The state of one daemon process."""

    def __init__(self, runtime: Runtime, loop: MainLoop) -> None:
        self._runtime, self._loop = runtime, loop
        self._log = logging.getLogger("dropr.daemon")
        self._wear = RecycleLimits(runtime.config.angel.recycle_after, runtime.config.angel.max_memory)
        self._turns = 0
        self._next_sweep = 0.0
        self._last_sweep = 0.0
        self._next_care = 0.0
        self._next_bodies = 0.0
        self._bodies_kept = False
        self._shown, self._shown_at = "", 0.0
        self._state_file = runtime.run_directory / "daemon.json"
        self._start_links()

    def _start_links(self) -> None:
        config = self._runtime.config
        self._transports = Transports(config.transports, self._runtime.context(self._log), config.where)
        self._links = Links(self._runtime, self._transports, self._loop.post, self._log)
        self._subscription = self._runtime.notifier.subscribe(topics.OUTBOX, topics.CONTROL, *self._links.topics)

    def run(self, path: Path | None) -> int:
        """The loop."""
        self._log.info("daemon of %s: %d peers", self._runtime.name, len(self._runtime.config.peers))
        recycle = ""
        try:
            while not self._loop.stopping and not recycle:
                self._subscription.prepare()
                wake = self._turn()
                if self._loop.reload:
                    self._loop.reload = False
                    self._reload(path)
                    continue
                self._turns += 1
                if self._turns % 1000 == 0:
                    recycle = self._wear.due(self._turns)
                self._loop.sleep(max(0.0, wake - self._runtime.clock.now()), self._subscription.fileno())
            self._drain()
        finally:
            self._links.close()
            self._transports.close()
            self._subscription.close()
            self._state_file.unlink(missing_ok=True)
        if recycle:
            self._log.info("asks for a fresh start: %s", recycle)
            return Exit.RECYCLE
        return Exit.OK

    def _turn(self) -> float:
        """Everything that can be done now; when to look again at the latest (node time)."""
        # The subscription was prepared just before: draining it here would take a notification whose flag is down
        # by now, and nobody would notify again.
        self._loop.run_posts()
        try:
            self._nudges()
            self._sweep()
            wake = self._links.turn()
        except (StoreError, OSError) as error:  # no handles, no room: it passes, and a daemon that died carries nothing
            self._log.error("the store failed, next try in 1 s: %s", error)
            self._runtime.event("store_trouble", {"error": str(error)})
            wake = self._runtime.clock.now() + 1.0
        self._show()
        # Look again now and then: a sender killed between its commit and its notification notified nobody.
        look = self._runtime.clock.now() + LOOK_AGAIN
        return min(look, self._next_sweep, self._next_care, look if wake is None else wake)

    def _sweep(self) -> None:
        now = self._runtime.clock.now()
        if now >= self._next_care:
            self._next_care = now + CARE_EVERY
            self._keep_clock()
            self._runtime.inbox.sweep()
        self._sweep_bodies(now)
        if now < self._last_sweep + SWEEP_EVERY:
            self._next_sweep = min(self._next_sweep, self._last_sweep + SWEEP_EVERY)
            if now < self._next_sweep:
                return
        ended, due = self._runtime.outbox.sweep(self._runtime.config.delivery.life)
        self._last_sweep = now
        self._next_sweep = max(now + SWEEP_EVERY, due) if due is not None else now + CARE_EVERY
        if ended:
            self._runtime.notifier.notify(topics.RECEIPTS)
            for message_id in ended:
                self._log.warning("message %s ended undelivered: see `dropr show`", format_id(message_id))

    def _sweep_bodies(self, now: float) -> None:
        """Bodies go soon after their messages; where there are none, nobody gets up for it."""
        if now >= self._next_bodies or (self._links.unloaded and now >= self._next_bodies - BODIES_EVERY + 1.0):
            self._links.unloaded = False
            started = time.monotonic()
            try:
                self._runtime.sweep_bodies()
                self._bodies_kept = self._runtime.bodies.any()
            except OSError as error:
                self._log.warning("cannot look after large bodies: %s", error)
            self._next_bodies = now + max(BODIES_EVERY, 200 * (time.monotonic() - started))
        wake = now + CARE_EVERY if not self._bodies_kept else self._next_bodies
        self._next_care = min(self._next_care, wake)

    def _nudges(self) -> None:
        directory = self._runtime.run_directory / "nudge"
        try:
            words = list(directory.iterdir())
        except OSError:  # nobody ever nudged; or no handles: then the request to retry is still there at the next turn
            return
        for word in words:
            word.unlink(missing_ok=True)
            if word.name == "announce":
                self._links.announce()
                continue
            self._links.reset_backoff(None if word.name == "all" else bytes.fromhex(word.name).decode())

    def _reload(self, path: Path | None) -> None:
        if path is None:
            return
        try:
            config = load(path)
            if (config.node, config.data, config.storage) != (
                self._runtime.config.node, self._runtime.config.data, self._runtime.config.storage,
            ):  # fmt: skip
                self._log.error("reload: node, data and storage cannot change while running; restart instead")
                return
            fresh = Runtime.open(config)
        except ConfigError as error:
            self._log.error("reload: the old configuration stays active:\n%s", error)
            return
        except DroprError as error:
            self._log.error("reload: the old configuration stays active: %s", error)
            return
        self._links.close()
        self._transports.close()
        self._subscription.close()
        self._runtime.close()
        self._runtime = fresh
        self._start_links()
        self._log.info("reloaded: %d peers", len(config.peers))

    def _drain(self) -> None:
        """Let pushes under way come to their end: an answer not read is work done twice."""
        deadline = time.monotonic() + self._runtime.config.angel.drain
        while self._links.busy and time.monotonic() < deadline:
            if not self._loop.run_posts():
                self._loop.sleep(0.05)
        self._keep_clock()
        self._log.info("daemon stopped")

    def _keep_clock(self) -> None:
        """A help for after the next boot: on a full disk the mail goes on without it."""
        try:
            keep_clock(self._runtime.config.data, self._runtime.clock)
        except OSError as error:
            self._log.warning("cannot keep the clock: %s", error)

    def _show(self) -> None:
        """Leave word for `dropr status`, only when something changed."""
        peers = self._links.report()
        text = json.dumps({"pid": os.getpid(), "node": self._runtime.name, "peers": peers}, sort_keys=True)
        if text == self._shown:
            return
        now, carrying = self._runtime.clock.now(), any("body" in peer for peer in peers.values())
        if carrying and now < self._shown_at + SHOW_EVERY:
            return  # a body moves with every turn; nobody looks that often
        self._shown, self._shown_at = text, now
        try:
            replace_text(self._state_file, text)
        except OSError as error:
            self._log.warning("cannot write %s: %s", self._state_file, error)
