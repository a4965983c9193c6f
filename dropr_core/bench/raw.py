"""The raw limits: what this disk does in a second without any message queue above it.

Owns the loops, each the shortest that has the same durability. Must not know dropr's storages.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

Step = Callable[[], int]
"""Does some of the work; how many messages that were."""

SCHEMA = "create table t(a integer primary key, b blob)"
PRAGMAS = ("pragma journal_mode=wal", "pragma synchronous=full")


@contextlib.contextmanager
def appends(file: Path, body: bytes, batch: int = 1) -> Iterator[Step]:
    """Append ``batch`` bodies to a file by one write, then fdatasync."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    piece = body * batch

    def step() -> int:
        os.write(descriptor, piece)
        os.fdatasync(descriptor)
        return batch

    try:
        yield step
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def commits(file: Path, body: bytes, batch: int = 1) -> Iterator[Step]:
    """Insert ``batch`` rows into SQLite by one commit, in a write-ahead log that is synced (WAL, FULL)."""
    database = sqlite3.connect(file, isolation_level=None)
    try:
        for words in (*PRAGMAS, SCHEMA):
            database.execute(words).fetchall()
        yield commit_step(database.execute, body, batch)
    finally:
        database.close()


def commit_step(execute: Callable[..., object], body: bytes, batch: int = 1) -> Step:
    """The same over a connection of any library that has `execute`, with `SCHEMA` in place."""
    many = ", ".join(["(?)"] * min(batch, 100))
    rounds, values = max(1, batch // 100), (body,) * min(batch, 100)

    def step() -> int:
        execute("begin immediate")
        for _ in range(rounds):
            execute(f"insert into t(b) values {many}", values)  # noqa: S608 - question marks only
        execute("commit")
        return rounds * len(values)

    return step
