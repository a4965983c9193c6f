"""All outboxes of a node, each looked after by a thread of its own.

Owns the threads: when each looks, how it rests while its database or the store fails, and the log's line for each
change, also of a full queue for which some messages wait. A thread sleeps until its database notifies (PostgreSQL), or
a program of this node does (SQLite), and looks seldom by itself. One outbox's trouble is nobody else's. Must not know
what a look does.
"""

import contextlib
import logging
import select
import threading
import time
from collections.abc import Callable, Mapping

import attrs

from dropr_core.api.failures import describe
from dropr_core.api.outboxes import Outbox
from dropr_core.api.runtime import Runtime
from dropr_core.errors import Closed, PluginError, QueueFull, StoreError
from dropr_core.model import topics
from dropr_core.model.backoff import Backoff
from dropr_core.outboxes.care import Care
from dropr_core.outboxes.relay import Relay
from dropr_core.outboxes.waiting import Queue
from dropr_core.system.notifier import LOOK_AGAIN, Subscription
from dropr_core.system.wake_up import WakeUp
from dropr_core.transactions.databases import Link, connect
from dropr_core.transactions.outbox_layout import NOTIFY

RESTS = Backoff(1.0, 30.0)
"""While a database cannot be used. A full store is asked every second."""
LOOK_SELDOM = 60.0
"""Seconds between looks into PostgreSQL without a notification: for rows that somebody had locked, and for care."""
SOON = 0.005
"""Seconds until the second look after a program has said that it writes; each pause after it is twice as long."""
CARE_EVERY = 60.0
FORGET_EVERY = 600.0
JOIN = 15.0
"""Seconds to wait for a thread that ends; one that hangs in its database is left behind, and changes nothing more."""


class Relays:
    """Those of one open node."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        """Starts them. Raises StoreError if there is no room for a pipe."""
        self._keepers = [_Keeper(runtime, outbox, log) for outbox in runtime.outboxes.all]

    @property
    def report(self) -> Mapping[str, str]:
        """Outbox → why it waits; empty: it does not."""
        return {keeper.name: keeper.reason or keeper.partly for keeper in self._keepers}

    def close(self) -> None:
        """End them; safe twice."""
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join()


@attrs.define(eq=False)
class _Chore:
    """A part of the care, done now and then."""

    do: Callable[[Link], object]
    every: float
    next: float = 0.0
    troubled: bool = False
    """It failed the last time, and the log says so."""


class _Keeper:
    """One outbox and its thread."""

    def __init__(self, runtime: Runtime, outbox: Outbox, log: logging.Logger) -> None:
        self.name, self.reason = outbox.name, ""
        self.partly = ""
        """Why some of its messages wait, while all others go."""
        self._told: set[Queue] = set()
        """Full queues of which the log says so."""
        self._runtime, self._outbox, self._log = runtime, outbox, log
        self._relay, care = Relay(runtime, outbox, log), Care(runtime, outbox)
        self._chores = [_Chore(care.keep_promises, CARE_EVERY), _Chore(care.forget_effects, FORGET_EVERY)]
        self._unsaid: tuple[_Chore, StoreError] | None = None
        """A chore that failed while nobody knows yet whether messages go."""
        self._stopping = False
        self._wake = WakeUp()
        self._subscription: Subscription | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"dropr-outbox-{outbox.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let it end."""
        if not self._stopping:
            self._stopping = True
            self._wake.wake()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(JOIN)
        if not self._thread.is_alive():
            self._wake.close()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stopping:
            link: Link | None = None
            try:
                link = connect(self._outbox.database, self._runtime.name)
                link.listen(NOTIFY)
                self._relay.begin_anew()
                self._look_after(link)
            except Closed:
                return
            except Exception as error:  # also of a driver: this thread must not end
                self._failed(error)
            finally:
                if link is not None:
                    with contextlib.suppress(Exception):
                        link.close()
                self._unsubscribe()
            self._rest(RESTS.fixed(self._failures))

    def _look_after(self, link: Link) -> None:
        """Until it fails, or this ends."""
        if link.kind == "sqlite":
            self._subscription = self._runtime.notifier.subscribe(topics.outbox_table(self.name))
        calm = LOOK_SELDOM if link.kind == "postgresql" else LOOK_AGAIN
        pause, more = calm, False
        while not self._stopping:
            if self._subscription is not None:
                self._subscription.prepare()
            try:
                more = link.changed() or more or self._relay.rest() <= 0
                while more and not self._stopping:
                    more = self._relay.step(link)
            except QueueFull as error:  # the database is well, and what is forgotten makes room
                self._failed(error)
                self._take_care(link)
                self._rest(1.0)
                continue
            self._worked()
            if not self._take_care(link):
                continue  # do messages still go? If not, that is the trouble, and it is said once
            fds = [self._wake.fileno()]
            if self._subscription is not None:
                fds.append(self._subscription.fileno())
            found = link.wait(fds, min(pause, self._relay.rest()))
            pause = SOON if self._subscription is not None and found else min(calm, pause * 2)

    def _take_care(self, link: Link) -> bool:
        """Do what is due; False if something failed that worked before."""
        now = time.monotonic()
        for chore in self._chores:
            if now < chore.next:
                continue
            chore.next = now + chore.every
            try:
                chore.do(link)
            except StoreError as error:
                if not chore.troubled:
                    self._unsaid = (chore, error)
                    return False
            else:
                if chore.troubled:
                    self._log.info("outbox %s: what is needed no more is forgotten again", self.name)
                chore.troubled = False
        return True

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _rest(self, seconds: float) -> None:
        if not self._stopping:
            select.select([self._wake.fileno()], [], [], seconds)

    # ── what is said ─────────────────────────────────────────────────────────────────────────────

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._unsaid = None
        known = isinstance(error, StoreError | PluginError)
        reason = str(error) if known else describe(error)
        if not self.reason or type(error).__name__ not in self.reason.partition(":")[0]:
            self._log.error(
                "outbox %s: its messages wait, it is tried again within %g s: %s", self.name, RESTS.cap, reason,
                exc_info=None if known else error,
            )  # fmt: skip
        self.reason = f"{type(error).__name__}: {reason}"

    def _worked(self) -> None:
        if self._failures:
            self._log.info("outbox %s works again", self.name)
        self._failures, self.reason = 0, ""
        self._tell_full()
        if self._unsaid is not None:  # messages go, and only this does not
            (chore, trouble), self._unsaid = self._unsaid, None
            self._log.warning("outbox %s: what is needed no more is forgotten later: %s", self.name, trouble)
            chore.troubled = True

    def _tell_full(self) -> None:
        full = self._relay.full
        for (kind, name), reason in full.items():
            if (kind, name) not in self._told:
                self._log.warning(
                    "outbox %s: messages for %s %s wait, all others go on: %s", self.name, kind, name, reason
                )
        for kind, name in self._told - full.keys():
            self._log.info("outbox %s: no messages wait for %s %s any more", self.name, kind, name)
        self._told = set(full)
        self.partly = f"only those of full queues: {'; '.join(full.values())}" if full else ""


__all__ = ["Relays"]
