"""Elections: a session advisory lock, held as long as its session lives.

Owns the session, and how its loss is noticed by who holds it: its socket says so. While nothing happens it costs
nothing: the kernel asks the line whether it is whole, on both ends, and our end gives up first. Must not know who is
elected for what.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from dropr_core.system.wake_up import WakeUp
from dropr_storage_postgres.engine.connection import Opener
from dropr_storage_postgres.engine.types import Connection

SERVER = {"tcp_keepalives_idle": "2", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3",
          "tcp_user_timeout": "8000"}  # fmt: skip
"""A machine that is gone is noticed by the server within 8 seconds; then another one is elected."""
OWN = (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 4000))
"""A line that is cut is noticed by the holder within 4 seconds."""

_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"


def stand(connection: Connection, schema: str, name: str) -> bool:
    """Whether this session has got the lock. Raises psycopg errors."""
    return bool(connection.execute(_LOCK, (f"dropr {schema} {name}",)).fetchall()[0][0])


def session(opener: Opener) -> Connection:
    """One for an election. Raises psycopg errors, StoreError."""
    connection, _ = opener.open(durable=False, read_only=False, **SERVER)
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        for option, value in OWN if line.family in {socket.AF_INET, socket.AF_INET6} else ():
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


class Held:
    """An election that was won. Implements `contracts.shared.Election`."""

    def __init__(self, connection: Connection, lost: Callable[[], None], ended: "Callable[[Held], Any]") -> None:
        """``ended``: told when it does not hold any more, for whatever reason."""
        self._connection, self._lost, self._ended = connection, lost, ended
        self._mutex = threading.Lock()
        self._holds, self._pid = True, os.getpid()
        self._wake = WakeUp()
        self._thread = threading.Thread(target=self._watch, name="dropr-election", daemon=True)
        self._thread.start()

    def holds(self) -> bool:
        """See `Election`."""
        return self._holds and os.getpid() == self._pid

    def release(self) -> None:
        """See `Election`."""
        if os.getpid() != self._pid or not self._end():
            return
        self._wake.wake()
        self._thread.join(10)

    def _end(self) -> bool:
        with self._mutex:
            held, self._holds = self._holds, False
        return held

    def _watch(self) -> None:
        """Until it is released, or the session ends: a quiet session has nothing to say."""
        poll = select.poll()
        poll.register(self._connection.pgconn.socket, select.POLLIN | select.POLLERR | select.POLLHUP)
        poll.register(self._wake, select.POLLIN)
        told = False
        while self._holds:
            poll.poll()
            if self._holds and self._broken():
                told = self._end()
                break
        with contextlib.suppress(psycopg.Error, OSError):
            self._connection.close()  # and with it goes the lock
        self._wake.close()
        self._ended(self)
        if told:
            self._lost()

    def _broken(self) -> bool:
        try:
            self._connection.pgconn.consume_input()
            with contextlib.suppress(IndexError):
                return self._connection.pgconn.status != psycopg.pq.ConnStatus.OK
        except (psycopg.Error, OSError):
            return True
        return False


__all__ = ["Held", "session", "stand"]
