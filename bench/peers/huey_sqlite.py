"""huey over SQLite: a task queue in one file, synced at each commit (`fsync=True`).

Owns nothing but the calls. It has none for many tasks at once, so its best is threads. A task that was taken is gone:
there is no lease and no acknowledgement.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, by_threads, repeated

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

        def ask(count: int) -> None:
            for _ in range(count):
                nothing(BODY)  # noqa: B023

        def task(enqueue: Callable[[int], None]) -> float:
            begun = time.perf_counter()
            enqueue(few)
            for _ in range(few):
                queue.execute(queue.dequeue())  # noqa: B023
            return few / (time.perf_counter() - begun)

        def one_by_one() -> float:
            return task(ask)

        def best() -> float:
            return task(lambda count: by_threads(ask, count))

        ways = {"send": send, "take": take, "handle": handle, "task": one_by_one, "task in the best mode": best}
        for what, once in ways.items():
            rate, spread = repeated(runs, once)
            how = "8 threads enqueue, each with a connection" if once is best else "one by one"
            yield Figure(what, rate, durable, f"{how}; {word}", "bench/peers/huey_sqlite.py", spread)
