"""huey (SQLite, fsync) beside us: the task queue that most resembles a local channel with a worker.

Owns how its best is had. Without huey installed its figures are left out, and that is said.
"""

import time
from pathlib import Path
from typing import Any

from bench.figure import Run


def take_rate(run: Run, count: int) -> list[float] | None:
    """Messages a second that huey's storage hands out and its consumer calls an empty task for; None without huey."""
    try:
        from huey import SqliteHuey
    except ImportError:
        run.note("huey is not installed: nothing to compare with")
        return None
    rates = []
    for _ in range(run.rounds + 1):
        rates.append(_one(SqliteHuey, run.directory("huey") / "huey.db", count))
    return rates[1:]


def _one(make: type, file: Path, count: int) -> float:
    _queue(make, file, fsync=False, count=count)
    huey = _queue(make, file, fsync=True)
    started, done = time.perf_counter(), 0
    while (one := huey.dequeue()) is not None:
        huey.execute(one)
        done += 1
    assert done == count
    return done / (time.perf_counter() - started)


def _queue(make: type, file: Path, *, fsync: bool, count: int = 0) -> Any:
    """A queue with an empty task, of which so many wait."""
    huey = make("bench", filename=str(file), fsync=fsync, results=False)

    def empty(_body: str) -> None:
        """Does nothing."""

    task = huey.task()(empty)
    for _ in range(count):
        huey.enqueue(task.s("x" * 200))
    return huey
