"""The client daemon: a loop around links. One for each store.

Owns the process: lock, signals, reload, sweeps, its report for `dropr status`. Everything about
peers is in `links.py`, when what is due in `agenda.py`; killing this process at any moment loses nothing.
"""

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import READ, WRITE, StoreTrouble
from dropr_core.config.node import NodeConfig, load
from dropr_core.delivery.links import Links
from dropr_core.delivery.transports import Transports
from dropr_core.errors import ConfigError, DroprError
from dropr_core.model import topics
from dropr_core.model.names import format_id
from dropr_core.processes.agenda import Agenda, Task
from dropr_core.processes.election import Office, Unshared, stand
from dropr_core.processes.mainloop import MainLoop
from dropr_core.schedules.scheduler import Scheduler
from dropr_core.system.clock import keep_clock
from dropr_core.system.exit_codes import Exit
from dropr_core.system.files import replace_text
from dropr_core.system.loading import unforked
from dropr_core.system.locks import FileLock
from dropr_core.system.log_fields import about
from dropr_core.system.notifier import LOOK_AGAIN
from dropr_core.system.os_errors import store_errors

if TYPE_CHECKING:
    from dropr_core.outboxes.relays import Relays

SWEEP_EVERY = 0.25
"""Seconds at least between two sweeps while there is traffic."""
CARE_EVERY = 300.0
"""Seconds between looks at things that nobody notifies for (retention, the clock file)."""
SCHEDULES_EVERY = 1.0
"""Seconds at least between looks at schedules where nothing is due: a clock that was set tells nobody."""
SHOW_EVERY = 0.5
"""Seconds at least between two words about what moves: how far a large body is, when a peer answered."""
MOVING = frozenset({"body", "moving"})
"""What of a peer's report moves."""
SHOW_LATER = 0.02
"""Seconds that a report waits at most for the answer to what is being sent: writing it takes longer than sending."""
SHOW_SHARE = 20.0
"""So many times as long as it took to write a report there is none: it shall take a twentieth of the time at most."""
BODIES_EVERY = 5.0
"""Seconds between looks at large bodies, while there are any; more where a look takes long."""
BODIES_SOON = 1.0
"""Seconds between two of them at least when a message with a large body was settled."""


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:
    """Carry this node's mail until told to stop. Returns an exit code.

    ``path``: the file to load again on SIGHUP. Raises Held if another daemon serves this store.
    """
    heart = heart or Heartbeat.from_environment()
    with Runtime.open(config) as runtime:
        lock = FileLock(config.data / "daemon.lock")
        with store_errors(lock.path):
            lock.acquire("dropr daemon")
        try:
            with MainLoop(heart) as loop:
                return _serve(runtime, loop, heart, path)
        finally:
            lock.release()


def _serve(runtime: Runtime, loop: MainLoop, heart: Heartbeat, path: Path | None) -> int:
    """Be the daemon of the node whenever this process is elected."""
    log = logging.getLogger("dropr.daemon")
    if runtime.storage.shared is not None:
        heart.ready()  # waiting is this process's work, too
    while (office := stand(runtime, loop, log)) is not None:
        try:
            daemon = Daemon(runtime, loop, office)
            heart.ready()
            code = daemon.run(path)
        finally:
            office.release()
        if not daemon.lost:
            return code
        loop.reload = True  # the file may have been read again since this runtime was opened
    return Exit.OK


class Carrier:
    """Everything that one configuration opens in a daemon: a generation, which is closed as a whole.

    Made whole or not at all; once it is closed, no answer to what it asked is heard any more.
    """

    def __init__(self, runtime: Runtime, loop: MainLoop, log: logging.Logger, *, owned: bool) -> None:
        """``owned``: close the runtime with the rest. Raises StoreError, PluginError."""
        self.runtime = runtime
        self.nudges = str(runtime.run_directory / "nudge")
        posts = loop.generation()
        with contextlib.ExitStack() as stack:
            if owned:
                stack.callback(runtime.close)
            transports = Transports(runtime.config.transports, runtime.context(log), runtime.config.where)
            stack.callback(transports.close)
            self.trouble = StoreTrouble(runtime.clock, runtime.event, log)
            self.links = Links(runtime, transports, posts.post, log, self.trouble)
            stack.callback(self.links.close)
            self.scheduler = Scheduler(runtime, log)
            self.relays = _relays(runtime, log)
            if self.relays is not None:
                stack.callback(self.relays.close)
            wakers = (topics.OUTBOX, topics.CONTROL, self.scheduler.topic, *self.links.topics)
            self.subscription = runtime.notifier.subscribe(*wakers)
            stack.callback(self.subscription.close)
            stack.callback(posts.close)  # first: closing the others ends what they asked
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Safe twice."""
        self._stack.close()


def _relays(runtime: Runtime, log: logging.Logger) -> "Relays | None":
    if not runtime.config.outboxes:
        return None
    with unforked:
        from dropr_core.outboxes.relays import Relays

    return Relays(runtime, log)


class Daemon:
    """The state of one daemon process."""

    def __init__(self, runtime: Runtime, loop: MainLoop, office: Office | None = None) -> None:
        """``office``: the right to do this; when it is lost, all work ends at once."""
        self._loop, self._office = loop, office or Unshared()
        self.lost = False
        """Whether it ended because another daemon may work by now."""
        self._log = logging.getLogger("dropr.daemon")
        self._wear = RecycleLimits(runtime.config.angel.recycle_after, runtime.config.angel.max_memory)
        self._turns = 0
        self._woken = True
        """Whether something happened since the last turn, besides that time has passed."""
        self._seen: object = None
        """What the report depends on, when it was last made and nothing was new."""
        self._shown, self._shown_at = "", 0.0
        self._still: object = None
        """What of the report that was written last does not move."""
        self._show_at = 0.0
        """Not before; with a thousand peers a report takes milliseconds."""
        self._show_by: float | None = None
        """The report waits for an answer, until then at most."""
        self._state_file = runtime.run_directory / "daemon.json"
        self._carrier = Carrier(runtime, loop, self._log, owned=False)
        self._make_agenda()

    def _make_agenda(self) -> None:
        carrier = self._carrier
        agenda = self._agenda = Agenda(carrier.runtime.clock, carrier.trouble)
        # First: a message that waits is what this process was most likely woken for. What the others bring for the
        # links is done behind them.
        self._linking = agenda.add(Task(("links",), self._turn_links, 0.0))
        agenda.add(Task((READ, "requests to retry"), self._nudges, 0.0))
        agenda.add(Task((WRITE, "staged"), self._take_over, LOOK_AGAIN))
        agenda.add(Task((WRITE, "clock"), self._keep_clock))
        agenda.add(Task((WRITE, "schedules"), carrier.scheduler.turn, SCHEDULES_EVERY))
        agenda.add(Task((WRITE, "inbox"), self._sweep_inbox))
        self._bodies = agenda.add(Task((WRITE, "bodies"), self._sweep_bodies, BODIES_EVERY))
        agenda.add(Task((WRITE, "outbox"), self._sweep_outbox, SWEEP_EVERY))
        agenda.add(Task(("report",), self._show, 0.0))

    def run(self, path: Path | None) -> int:
        """The loop."""
        config = self._carrier.runtime.config
        self._log.info("daemon of %s: %d peers", config.node, len(config.peers))
        recycle = ""
        try:
            while not self._loop.stopping and not recycle and not self.lost:
                self._carrier.subscription.prepare()
                wake = self.turn()
                if self._loop.reload:
                    self._loop.reload = False
                    self._reload(path)
                    continue
                self._turns += 1
                if self._turns % 1000 == 0:
                    recycle = self._wear.due(self._turns)
                carrier = self._carrier
                pause = max(0.0, wake - carrier.runtime.clock.now())
                self._woken = self._loop.sleep(pause, carrier.subscription.fileno())
                self.lost = not self._office.holds()
            if self.lost:
                # What is under way is harmless: whoever goes on with it is judged by log matching like a retry.
                self._log.warning("this machine lost the line to the store, and with it the election: another daemon "
                                  "takes over, this one stops at once and waits for its turn")  # fmt: skip
            else:
                self._drain()
        finally:
            self.close()
        if recycle:
            self._log.info("asks for a fresh start: %s", recycle)
            return Exit.RECYCLE
        return Exit.OK

    def turn(self) -> float:
        """Everything that can be done now; when to look again at the latest (node time)."""
        # The subscription was prepared just before: draining it here would take a notification whose flag is down
        # by now, and nobody would notify again.
        if self._loop.has_posts or not self._carrier.trouble.well:
            with self._carrier.trouble.guard(("answers",)):
                self._woken |= self._loop.run_posts() > 0
        wake, bodies = self._agenda.turn(woken=self._woken), self._bodies
        if self._carrier.links.unloaded and bodies.spacing is not None and bodies.spacing > BODIES_SOON:
            bodies.spacing = BODIES_SOON
            # Planned here: by itself the next turn would come, and plan, when something happens again.
            bodies.early = max(bodies.last + BODIES_SOON, self._carrier.runtime.clock.now() + BODIES_SOON / 100)
            wake = min(wake, bodies.early)
        return wake

    def close(self) -> None:
        """Let go of everything; safe twice."""
        self._carrier.close()
        with contextlib.suppress(OSError):  # read-only by now: whoever reads it sees that its process is gone
            self._state_file.unlink(missing_ok=True)

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────

    def _turn_links(self, now: float) -> float:
        wake = self._carrier.links.turn()
        # Look again now and then: a sender killed between its commit and its notification notified nobody.
        return now + LOOK_AGAIN if wake is None else min(wake, now + LOOK_AGAIN)

    def _nudges(self, now: float) -> float:
        directory = self._carrier.nudges
        try:
            names = os.listdir(directory)  # noqa: PTH208 - at each turn, and paths cost more than the call
        except FileNotFoundError:  # nobody ever nudged
            names = []
        for name in names:
            word = Path(directory, name)
            word.unlink(missing_ok=True)
            self._linking.again = True
            if word.name == "announce":
                self._carrier.links.announce()
                continue
            self._carrier.links.reset_backoff(None if word.name == "all" else bytes.fromhex(word.name).decode())
        return now + LOOK_AGAIN

    def _take_over(self, now: float) -> float:
        """What programs had staged when they were killed: they notified nobody."""
        runtime = self._carrier.runtime
        if runtime.outbox.staging and runtime.staging.take_over():
            self._linking.again = True
        return now + LOOK_AGAIN

    def _keep_clock(self, now: float) -> float:
        """A help for after the next boot."""
        keep_clock(self._carrier.runtime.config.data, self._carrier.runtime.clock)
        return now + CARE_EVERY

    def _sweep_inbox(self, now: float) -> float:
        self._carrier.runtime.inbox.sweep()
        return now + CARE_EVERY

    def _sweep_outbox(self, now: float) -> float:
        runtime = self._carrier.runtime
        ended, due = runtime.outbox.sweep(runtime.config.delivery.life)
        if ended:
            runtime.notifier.notify(topics.RECEIPTS)
            for message_id in ended:
                self._log.warning("message %s ended undelivered: see `dropr show`", format_id(message_id),
                                  extra=about(message=message_id))  # fmt: skip
        return now + CARE_EVERY if due is None else max(now + SWEEP_EVERY, due)

    def _sweep_bodies(self, now: float) -> float:
        """Bodies go soon after their messages; where there are none, nobody gets up for it."""
        runtime, started = self._carrier.runtime, time.monotonic()
        runtime.sweep_bodies()
        kept = runtime.bodies.any()
        self._carrier.links.unloaded = False
        self._bodies.spacing = max(BODIES_EVERY, 200 * (time.monotonic() - started))
        return now + (self._bodies.spacing if kept else CARE_EVERY)

    def _show(self, now: float) -> float:
        """Leave word for `dropr status`, only when something changed."""
        if now < self._show_at:
            return self._show_at  # there may be something new: shown then, and not forgotten
        if self._carrier.links.shipping and now < (self._show_by or now + SHOW_LATER):
            self._show_by = self._show_by or now + SHOW_LATER
            return self._show_by
        self._show_by = None
        carrier = self._carrier
        seen = (carrier.links, carrier.links.stirs, carrier.trouble.reason,
                None if carrier.relays is None else dict(carrier.relays.report))  # fmt: skip
        if seen == self._seen:
            return now + LOOK_AGAIN
        began = time.perf_counter()
        peers = carrier.links.report()
        document = {"pid": os.getpid(), "node": carrier.runtime.name, "peers": peers, "store": carrier.trouble.reason}
        if carrier.relays is not None:
            document["outboxes"] = dict(carrier.relays.report)
        text = json.dumps(document, sort_keys=True)
        # What moves with every answer, and a body with every turn: nobody looks that often.
        quiet = {
            name: {word: told for word, told in peer.items() if word not in MOVING} for name, peer in peers.items()
        }
        still, soon = (quiet, carrier.trouble.reason), self._shown_at + SHOW_EVERY
        if text != self._shown and (still != self._still or now >= soon):
            replace_text(self._state_file, text)
            self._shown, self._shown_at, self._still = text, now, still
        self._seen = seen if text == self._shown else None
        self._show_at = now + min(SHOW_EVERY, SHOW_SHARE * (time.perf_counter() - began))
        return now + LOOK_AGAIN if text == self._shown else max(soon, self._show_at)

    # ── reload and end ───────────────────────────────────────────────────────────────────────────

    def _reload(self, path: Path | None) -> None:
        if path is None:
            return
        old = self._carrier.runtime.config
        try:
            config = load(path)
            if (config.node, config.data, config.storage) != (old.node, old.data, old.storage):
                self._log.error("reload: node, data and storage cannot change while running; restart instead")
                return
            fresh = Runtime.open(config)
            try:
                carrier = Carrier(fresh, self._loop, self._log, owned=True)
            except BaseException:
                fresh.close()
                raise
        except ConfigError as error:
            self._log.error("reload: the old configuration stays active:\n%s", error)
            return
        except (DroprError, OSError) as error:
            self._log.error("reload: the old configuration stays active: %s", error)
            return
        before, self._carrier = self._carrier, carrier
        self._make_agenda()
        before.close()
        self._log.info("reloaded: %d peers", len(config.peers))

    def _drain(self) -> None:
        """Let pushes under way come to their end: an answer not read is work done twice."""
        carrier = self._carrier
        deadline = time.monotonic() + carrier.runtime.config.angel.drain
        while carrier.links.busy and time.monotonic() < deadline:
            with carrier.trouble.guard(("answers",)):
                if not self._loop.run_posts():
                    self._loop.sleep(0.05)
        with carrier.trouble.guard((WRITE, "clock")):
            self._keep_clock(carrier.runtime.clock.now())
        self._log.info("daemon stopped")
