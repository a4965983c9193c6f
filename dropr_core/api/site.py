"""A node on several machines that open one store: a site.

Owns what each machine does of it: wake-ups go to the others and come from them, the documents of the node stand in the
store, and so does its id. Must not know storages, nor who is elected for what.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from dropr_core.api.stored_documents import TOPIC, StoredDocuments
from dropr_core.contracts.shared import Listening, Shared
from dropr_core.errors import ConfigError, StoreError
from dropr_core.model import topics
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import Notifier, Subscription

NUDGE = "nudge/"
"""Before what is said to the daemon of a node, in a wake-up: it runs on one of the machines."""

IDENTITY = "node.json"
"""Which node the store belongs to."""


class SiteNotifier(Notifier):
    """Wakes who waits on this machine, and those on the others.

    A process listens to the others from its first subscription on. While nobody waits on any machine, a notification
    costs the storage's word to its database; the storage puts many into one.
    """

    def __init__(
        self, directory: Path, shared: Shared, documents: StoredDocuments, nudged: Callable[[str], None]
    ) -> None:
        """``nudged``: told what another machine says to the daemon."""
        super().__init__(directory)
        self._shared, self._documents, self._nudged = shared, documents, nudged
        self._mutex = threading.Lock()
        self._listening: Listening | None = None
        self._closed = False

    def notify(self, topic: str) -> None:
        """See `Notifier`; other machines too."""
        super().notify(topic)
        self._shared.notify((topic,))

    def nudge(self, word: str) -> None:
        """Say something to the daemon, if it runs on another machine."""
        self._shared.notify((NUDGE + word,))

    def subscribe(self, *wanted: str) -> Subscription:
        """See `Notifier`."""
        with self._mutex:
            if self._listening is None and not self._closed:
                with contextlib.suppress(StoreError):  # closed: who waits will be told so
                    self._listening = self._shared.listen(self._heard)
                    self._documents.listening = True
        return super().subscribe(*wanted)

    def close(self) -> None:
        """See `Notifier`; stops listening."""
        with self._mutex:
            self._closed = True
            listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        super().close()

    def _heard(self, topic: str | None) -> None:
        if topic is None:
            # Something may have been missed. Whoever waits looks by himself within seconds; the daemon knows more.
            self._documents.changes += 1
            super().notify(topics.OUTBOX)
            super().notify(topics.CONTROL)
        elif topic.startswith(TOPIC):
            self._documents.changes += 1
        elif topic.startswith(NUDGE):
            with contextlib.suppress(
                StoreError, ValueError
            ):  # a full disk: the daemon finds out by itself, a little later
                self._nudged(_checked_word(topic.removeprefix(NUDGE)))
        else:
            super().notify(topic)


def _checked_word(word: str) -> str:
    """As it becomes a file's name: ``all``, ``announce``, or a peer's name in hex."""
    if word not in {"all", "announce"}:
        bytes.fromhex(word).decode()
    return word


def share(
    shared: Shared, clock: Clock, run_directory: Path, nudged: Callable[[str], None]
) -> tuple[StoredDocuments, SiteNotifier]:
    """The documents and the notifier of a machine."""
    documents = StoredDocuments(shared, clock)
    return documents, SiteNotifier(run_directory / "bell", shared, documents, nudged)


def join_site(shared: Shared, node: str) -> bytes:
    """The id of the node that the store belongs to; the first machine makes it. Raises ConfigError if it is another
    node's store, StoreError.
    """
    mine = b"%s %s\n" % (os.urandom(16).hex().encode(), node.encode())
    while (found := shared.load(IDENTITY)) is None:
        shared.replace(IDENTITY, mine, 0)
    identity, _, name = found.data.decode().strip().partition(" ")
    if name != node:
        text = (
            f"storage: this store belongs to the node {name}, and this configuration is that of {node}; machines that "
            "share a store have one name, and each node needs a store (a schema) of its own"
        )
        raise ConfigError([text])
    return bytes.fromhex(identity)


__all__ = ["SiteNotifier", "join_site", "share"]
