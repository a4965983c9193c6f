"""The node of a process: opened when it is first asked for, never carried across a fork, closed at the end.

Owns that one object and its lock. Must not know tasks.
"""

import atexit
import os
import threading

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from dropr_core.api.node import Node
from dropr_django.configuration import node_file


class NodeOfProcess:
    """Kept by the app's configuration. Safe to use from many threads."""

    def __init__(self) -> None:
        """Opens nothing."""
        self._lock = threading.Lock()
        self._node: Node | None = None
        self._pid = 0
        self._inherited: list[Node] = []
        """Of the processes before a fork: not ours to close, nor to be collected here."""
        self._closes_at_exit = 0

    def node(self) -> Node:
        """It. Raises ImproperlyConfigured, ConfigError, PluginError, StoreError."""
        with self._lock:
            if self._node is not None and self._pid != os.getpid():
                self._inherited.append(self._node)
                self._node = None
            if self._node is None:
                self._node, self._pid = Node.open(node_file()), os.getpid()
                if self._closes_at_exit != self._pid:
                    self._closes_at_exit = self._pid
                    atexit.register(self.close)
            return self._node

    def after_fork(self) -> None:
        """In a child: who held the lock is not here."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close it, if this process has opened it; it is opened again when somebody asks. Safe twice."""
        with self._lock:
            node, self._node = self._node, None
            if node is None:
                return
            if self._pid == os.getpid():
                node.close()
            else:
                self._inherited.append(node)


def node_of_this_process() -> Node:
    """See `dropr_django.node`."""
    return of_app().node()


def of_app() -> NodeOfProcess:
    """That of the installed app. Raises ImproperlyConfigured."""
    try:
        app = apps.get_app_config("dropr_django")
    except LookupError:
        raise ImproperlyConfigured('add "dropr_django" to INSTALLED_APPS') from None
    opened: NodeOfProcess = app.opened
    return opened
