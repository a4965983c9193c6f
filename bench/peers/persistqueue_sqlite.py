"""persist-queue: `SQLiteAckQueue` in a file.

Owns nothing but the calls. It commits each call; SQLite's default for it is synchronous=FULL.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, repeated

NAME = "persist-queue"


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if importlib.util.find_spec("persistqueue") else "persist-queue is not installed"


def version() -> str:
    """Of the library."""
    return f"persist-queue {importlib.metadata.version('persist-queue')}"


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Put one by one; get and acknowledge."""
    from persistqueue import SQLiteAckQueue

    few = max(200, messages // 50)
    queue = SQLiteAckQueue(str(home / "persistqueue"), auto_commit=True)

    def send() -> float:
        begun = time.perf_counter()
        for _ in range(few):
            queue.put(BODY)
        return few / (time.perf_counter() - begun)

    def take() -> float:
        begun = time.perf_counter()
        for _ in range(few // 2):
            queue.ack(queue.get(block=False))
        return few // 2 / (time.perf_counter() - begun)

    for what, once in (("send", send), ("take", take)):
        rate, spread = repeated(runs, once)
        yield Figure(
            what, rate, True, "one by one; SQLiteAckQueue, auto_commit", "bench/peers/persistqueue_sqlite.py", spread
        )
    queue.close()
