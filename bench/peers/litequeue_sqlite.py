"""litequeue: a queue in a SQLite file.

Owns nothing but the calls. As it ships it syncs at checkpoints only (synchronous=NORMAL); durable is FULL.
"""

import importlib.metadata
import importlib.util
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, repeated

NAME = "litequeue"


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if importlib.util.find_spec("litequeue") else "litequeue is not installed"


def version() -> str:
    """Of the library."""
    return f"litequeue {importlib.metadata.version('litequeue')}"


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Put one by one; take and acknowledge."""
    from litequeue import LiteQueue

    few, body = max(200, messages // 50), BODY.decode()
    for durable in (True, False):
        word = "synchronous=FULL" if durable else "default: synchronous=NORMAL"
        connection = sqlite3.connect(home / f"litequeue-{durable}.db", isolation_level=None, check_same_thread=False)
        queue = LiteQueue(filename_or_conn=connection)
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")

        def send() -> float:
            begun = time.perf_counter()
            for _ in range(few):
                queue.put(body)  # noqa: B023
            return few / (time.perf_counter() - begun)

        def take() -> float:
            part = few // 10
            begun = time.perf_counter()
            for _ in range(part):
                queue.done(queue.pop().message_id)  # noqa: B023
            return part / (time.perf_counter() - begun)

        for what, once in (("send", send), ("take", take)):
            rate, spread = repeated(runs, once)
            yield Figure(what, rate, durable, f"one by one; {word}", "bench/peers/litequeue_sqlite.py", spread)
        connection.close()
