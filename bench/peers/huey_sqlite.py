"""huey over SQLite: a task queue in one file, synced at each commit (`fsync=True`).

Owns nothing but the calls. A task that was taken is gone: there is no lease and no acknowledgement.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, repeated

NAME = "huey (SQLite)"


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if importlib.util.find_spec("huey") else "huey is not installed"


def version() -> str:
    """Of the library."""
    return f"huey {importlib.metadata.version('huey')}"


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Enqueue, take, and what its consumer does with an empty task in one thread."""
    from huey import SqliteHuey

    few = max(200, messages // 20)
    for durable in (True, False):
        word = "fsync=True" if durable else "default: fsync=False"
        queue = SqliteHuey("bench", filename=str(home / f"huey-{durable}.db"), fsync=durable, results=False)
        storage = queue.storage

        def empty(body: bytes) -> None:
            del body

        nothing = queue.task()(empty)

        def send() -> float:
            begun = time.perf_counter()
            for _ in range(few):
                storage.enqueue(BODY)  # noqa: B023
            return few / (time.perf_counter() - begun)

        def take() -> float:
            begun = time.perf_counter()
            for _ in range(few):
                assert storage.dequeue() is not None  # noqa: B023
            return few / (time.perf_counter() - begun)

        def handle() -> float:
            for _ in range(few):
                nothing(BODY)  # noqa: B023
            begun = time.perf_counter()
            for _ in range(few):
                queue.execute(queue.dequeue())  # noqa: B023
            return few / (time.perf_counter() - begun)

        def task() -> float:
            begun = time.perf_counter()
            for _ in range(few):
                nothing(BODY)  # noqa: B023
            for _ in range(few):
                queue.execute(queue.dequeue())  # noqa: B023
            return few / (time.perf_counter() - begun)

        for what, once in (("send", send), ("take", take), ("handle", handle), ("task", task)):
            rate, spread = repeated(runs, once)
            yield Figure(what, rate, durable, f"one by one; {word}", "bench/peers/huey_sqlite.py", spread)
