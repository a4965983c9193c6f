"""The open nodes of this process, one for each YAML file, shared by all connections of Kombu and by the backend.

Owns how often one is opened: once in a process, closed with its last user, and anew in a forked child, where the
parent's may not be used. Must not know messages.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from dropr_core import open as open_node

if TYPE_CHECKING:
    from dropr_core import Node


LAST = 1000
"""Tasks of which is remembered where their results go."""


class SharedNode:
    """One node, opened when it is first needed. Safe to use from many threads and after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        self.chord_sizes: dict[str, int] = {}
        """Chords whose last task is about to be sent from here: group → number of its tasks (results/backend.py)."""
        self.homes: OrderedDict[str, list[str]] = OrderedDict()
        """Where results of the tasks go that came last: of those that it does not know Celery tells only the id."""
        self._node: Node | None = None
        self._pid = 0

    @property
    def node(self) -> "Node":
        """The open node of this process. Raises ConfigError, PluginError, StoreError."""
        node = self._node
        if node is not None and self._pid == os.getpid():
            return node
        with _STATE.lock:
            if self._node is None or self._pid != os.getpid():
                self._node = open_node(self.path)
                self._pid = os.getpid()
            return self._node

    def remember(self, task: str, homes: list[str]) -> None:
        """Note where the result of a task goes that has come; the last thousand are known."""
        self.homes[task] = homes
        while len(self.homes) > LAST:
            self.homes.popitem(last=False)

    def release(self) -> None:
        """One user less; with the last one the node is closed."""
        with _STATE.lock:
            self.users -= 1
            if self.users > 0:
                return
            _STATE.shared.pop(self.path, None)
            node, self._node = self._node, None
        if node is not None and self._pid == os.getpid():
            node.close()


class _State:
    """What a process has open: Kombu makes transports by itself, and there is no other place to share a node."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.shared: dict[Path, SharedNode] = {}

    def renew_lock(self) -> None:
        """In a forked child: a thread of the parent may have held it, and there is no such thread here."""
        self.lock = threading.RLock()


_STATE = _State()
os.register_at_fork(after_in_child=_STATE.renew_lock)


def acquire(path: Path) -> SharedNode:
    """The node of a YAML file, with one user more; to be released. Opens nothing yet."""
    with _STATE.lock:
        shared = _STATE.shared.get(path)
        if shared is None:
            shared = _STATE.shared[path] = SharedNode(path)
        shared.users += 1
        return shared
