"""The raw limits of several senders: a group commit of threads, and processes that share one file.

Owns the loops, each the shortest that we know of with the same promise: what was put is on stable storage when the call
returns. Must not know dropr's storages.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from dropr_core.bench import raw

Flush = Callable[[Sequence[bytes]], object]
"""Brings some bodies to stable storage, by one write or one commit."""

KINDS = ("append + fdatasync", "append, fdatasync in a lock", "commit")
"""What processes can do to one file: each syncs for itself, one after the other, or SQLite."""


class _Waiter:
    """Where a thread waits, and whether it is woken to lead."""

    def __init__(self) -> None:
        self.woken, self.leads = threading.Lock(), False
        self.woken.acquire()


class GroupCommit:
    """One thread leads: it flushes what has come until then, for all, while the others wait or bring more."""

    def __init__(self, flush: Flush) -> None:
        self._flush, self._lock = flush, threading.Lock()
        self._pieces: list[bytes] = []
        self._waiting: list[_Waiter] = []
        self._led = False
        self._own = threading.local()

    @property
    def gathered(self) -> Sequence[bytes]:
        """What waits for the next flush."""
        return self._pieces

    def put(self, body: bytes) -> None:
        """Return once it is on stable storage."""
        me: _Waiter | None = getattr(self._own, "waiter", None)
        if me is None:
            me = self._own.waiter = _Waiter()
        with self._lock:
            self._pieces.append(body)
            self._waiting.append(me)
            led, self._led = self._led, True
        if led:
            me.woken.acquire()
            if not me.leads:
                return
            me.leads = False
        with self._lock:
            pieces, waiting = self._pieces, self._waiting
            self._pieces, self._waiting = [], []
        self._flush(pieces)
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
        if following is not None:  # first, so that the disk has work while the others are woken
            following.leads = True
            following.woken.release()
        for one in waiting:
            if one is not me:
                one.woken.release()


@contextmanager
def group_commit(file: Path, storage: str) -> Iterator[GroupCommit]:
    """For threads: one file that is appended to and synced, or one SQLite database with a log that is synced."""
    if storage == "fs":
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

        def append(bodies: Sequence[bytes]) -> None:
            os.write(descriptor, b"".join(bodies))
            os.fdatasync(descriptor)

        try:
            yield GroupCommit(append)
        finally:
            os.close(descriptor)
        return
    database = prepared(file)

    def commit(bodies: Sequence[bytes]) -> None:
        database.execute("begin immediate")
        database.execute(f"insert into t(b) values {', '.join(['(?)'] * len(bodies))}", bodies)
        database.execute("commit")

    try:
        yield GroupCommit(commit)
    finally:
        database.close()


def prepared(file: Path) -> apsw.Connection:
    """A database with a log that is synced, by the library that the storage uses."""
    database = apsw.Connection(str(file))
    database.set_busy_timeout(60_000)
    for words in raw.PRAGMAS:
        database.execute(words).fetchall()
    database.execute(raw.SCHEMA.replace("create table", "create table if not exists"))
    return database


@contextmanager
def shared(file: Path, kind: str, body: bytes) -> Iterator[raw.Step]:
    """For one of several processes: a step that puts one body into a file that all of them share."""
    if kind == "commit":
        database = prepared(file)
        try:
            yield raw.commit_step(database.execute, body)
        finally:
            database.close()
        return
    with raw.appends(file, body) as step, file.open("rb") as lock:

        def alone() -> int:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return step()
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

        yield step if kind == KINDS[0] else alone
