"""A forked child lets go of its parent's sessions.

libpq's handles are of no use in a child: two processes that speak on one session make nonsense of it. But the child
inherits the socket, and as long as it keeps it open the server takes a dead parent for alive, and keeps its leases.
Owns the closing of these sockets in the child, without a word to the server. Must not know what they were used for.
"""

import contextlib
import os
import weakref
from typing import Any

import psycopg


class Sessions:
    """The open connections of one process. One for the plugin, since forks are the process's."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
        self._kept: list[psycopg.Connection[Any]] = []
        os.register_at_fork(after_in_child=self._in_child)

    def watch(self, connection: psycopg.Connection[Any]) -> None:
        """Close its socket in children."""
        self._open.add(connection)

    def _in_child(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError, psycopg.Error):
                os.close(connection.pgconn.socket)
            self._kept.append(connection)  # never collected: closing it would say farewell in the parent's name
        self._open = weakref.WeakSet()


SESSIONS = Sessions()
