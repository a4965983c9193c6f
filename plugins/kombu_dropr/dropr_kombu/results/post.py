"""Results on their way home: sent by the node that ran the task, taken in by the node that asked.

Owns the channel on which they travel, how one is written there, and waiting for news. A result is a message as any
other: it survives outages, may be of any size, and comes once. Must not know Celery.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dropr_core.errors import UnknownPeer
from dropr_core.model import topics
from dropr_core.system.notifier import LOOK_AGAIN, Subscription
from dropr_kombu.nodes import SharedNode
from dropr_kombu.results.shared_table import SharedTable
from dropr_kombu.results.table import Entry, Table

if TYPE_CHECKING:
    from dropr_core import Received
    from dropr_core.contracts.shared import Shared

CHANNEL = "celery-results"
"""Where `broker_transport_options` or the URL say nothing else; peers need the right to write to it."""
NEWS = "kombu-results"
"""The notifier's topic for results that were kept here."""

log = logging.getLogger("dropr.kombu")


class Letter(msgspec.Struct):
    """The body of a result's message, in JSON."""

    key: str
    value: bytes
    final: bool
    life: float | None = None
    """Seconds for which it is kept, from its arrival; None: for good."""


class Post:
    """Results of one node. Safe to use from many threads, and over a fork."""

    def __init__(self, shared: SharedNode, channel: str = CHANNEL) -> None:
        self._shared, self._channel = shared, channel
        self._table: Table | None = None
        self._common: tuple[Shared, SharedTable] | None = None
        self._lock = threading.Lock()
        self._consumer: tuple[int, Any] | None = None
        self._unknown: set[str] = set()

    @property
    def table(self) -> Table | SharedTable:
        """What is kept at this node: beside its store, or in it where several machines have one. Raises StoreError."""
        common = self._shared.node.runtime.storage.shared
        if common is not None:
            if self._common is None or self._common[0] is not common:  # after a fork the node is another one
                self._common = common, SharedTable(common)
            return self._common[1]
        if self._table is None:
            self._table = Table(self._shared.node.config.data / "celery-results.db")
        return self._table

    def keep(self, entry: Entry) -> None:
        """Keep something here, and wake whoever waits for it. Raises StoreError."""
        self.table.put([entry])
        self._shared.node.runtime.notifier.notify(NEWS)

    def deliver(self, entry: Entry, homes: Sequence[str]) -> None:
        """Keep it here, or send it to where it is wanted; durable when this returns. Raises StoreError, UsageError."""
        node = self._shared.node
        for home in homes or (node.name,):
            if home == node.name:
                self.keep(entry)
                continue
            life = None if entry.until is None else max(1.0, entry.until - time.time())
            body = msgspec.json.encode(Letter(entry.key, entry.value, entry.final, life))
            try:
                # One key: what happened to a task arrives in the order in which it happened, whoever takes it in.
                node.send(body, to=home, channel=self._channel, key=entry.key[-200:], expires_in=life)
            except UnknownPeer as error:
                if home not in self._unknown:
                    self._unknown.add(home)
                    log.error("results for node %s are kept at %s, which has no such peer: %s", home, node.name, error)
                self.keep(entry)

    def take_in(self) -> None:
        """Keep what has arrived. Raises StoreError."""
        with self._lock:
            consumer = self._open()
            while claimed := consumer.claim(100):
                read = [(one, _read(one)) for one in claimed]
                for one, letter in read:
                    if letter is None:
                        one.bury("not a result of Celery")
                good = [(one, letter) for one, letter in read if letter is not None]
                now = time.time()
                self.table.put(
                    Entry(one.key, one.value, one.final, None if one.life is None else now + one.life)
                    for _, one in good
                )
                consumer.acknowledge([one for one, _ in good])
                self._shared.node.runtime.notifier.notify(NEWS)

    def _open(self) -> Any:
        if self._consumer is None or self._consumer[0] != os.getpid():
            self._consumer = os.getpid(), self._shared.node.consumer(self._channel, label="celery-results")
        return self._consumer[1]

    @contextlib.contextmanager
    def watch(self) -> Iterator[Subscription]:
        """Woken when there may be something new."""
        with self._shared.node.runtime.notifier.subscribe(topics.inbox(self._channel), NEWS) as subscription:
            yield subscription

    def begin_anew(self) -> None:
        """In a forked child: a thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Leave the file and the inbox; safe twice."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None and consumer[0] == os.getpid():
            consumer[1].close()
        if self._table is not None:
            self._table.close()


def wait(subscription: Subscription, ends: float | None) -> None:
    """Sleep until there is news, or until ``ends`` on the monotonic clock."""
    subscription.wait(LOOK_AGAIN if ends is None else max(0.0, ends - time.monotonic()))


def _read(received: "Received") -> Letter | None:
    try:
        return msgspec.json.decode(received.body, type=Letter)
    except msgspec.DecodeError:
        return None
