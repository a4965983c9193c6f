"""The storage ``memory``: both halves as plain dicts of one process, for tests and demonstrations.

Owns the medium (what a disk is to other storages) and the storage that opens it. It is the reference
model of the storage contract: simple before fast, so some calls do cost more with the backlog. Nothing
survives the process. Must not know peers' addresses, transports or what a body means.
"""

import os
import threading
import weakref

import attrs

from dropr_core.builtin.memory_data import InboxData, OutboxData
from dropr_core.builtin.memory_inbox import MemoryInbox
from dropr_core.builtin.memory_outbox import MemoryOutbox
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Storage
from dropr_core.hookspecs import hookimpl


@attrs.frozen(kw_only=True)
class Options:
    """Options of the storage ``memory``: none."""


class Medium:
    """What stays when a storage is closed, as long as any storage object over it lives."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.outbox = OutboxData()
        self.inbox = InboxData()


class _Media:
    """Data directory → medium. This is the 'disk' of the process, the one thing that all its nodes must share; weak, so
    that a medium goes when the last storage over it is dropped (closing alone keeps it). A forked child has a disk of
    its own, empty: a copy would give out every message twice, and a thread that is not there may hold its locks.
    """

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._media: weakref.WeakValueDictionary[str, Medium] = weakref.WeakValueDictionary()

    def at(self, place: str) -> Medium:
        """The one of a directory; made when it is asked for first."""
        with self._lock:
            medium = self._media.get(place)
            if medium is None:
                medium = self._media[place] = Medium()
            return medium


_MEDIA = _Media()


def medium_of(context: Context) -> Medium:
    """The medium of a data directory: the same for every storage opened on it."""
    return _MEDIA.at(os.path.realpath(context.data))


class MemoryStorage(Storage):
    """Both halves over one medium. Two of them with the same ``context.data`` are one store."""

    abilities = frozenset({"ordering_key"})

    outbox: MemoryOutbox
    inbox: MemoryInbox

    def __init__(self, context: Context) -> None:
        self._medium = medium_of(context)
        self.outbox = MemoryOutbox(self._medium.outbox, self._medium.lock, context)
        self.inbox = MemoryInbox(self._medium.inbox, self._medium.lock, context)

    def close(self) -> None:
        """Close both halves; safe twice."""
        self.outbox.close()
        self.inbox.close()


@hookimpl
def dropr_storage(options: object, context: Context) -> Storage:  # noqa: ARG001
    """A storage in memory; see hookspecs.py."""
    return MemoryStorage(context)


__all__ = ["Medium", "MemoryStorage", "Options", "dropr_storage", "medium_of"]
