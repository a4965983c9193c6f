"""RQ on Redis: `SimpleWorker` in burst mode, which forks nothing.

Owns the calls.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.figure import BODY, Figure
from bench.peers.redis_tasks import PYTHON, measure_tasks, missing_server, server_version

if TYPE_CHECKING:
    from redis import Redis

NAME = "RQ (Redis)"


def missing() -> str:
    """Why it cannot be measured here."""
    return missing_server() if importlib.util.find_spec("rq") else "rq is not installed"


def version() -> str:
    """Of the library and the server."""
    return f"rq {importlib.metadata.version('rq')}, {server_version()}"


def nothing(body: str) -> None:
    """The task."""
    del body


class Client:
    """Its sender."""

    best = "enqueue_many of 100"

    def __init__(self, url: str) -> None:
        from redis import Redis
        from rq import Queue

        self._queue = Queue(connection=Redis.from_url(url))

    def enqueue(self, count: int) -> None:
        """One by one."""
        body = BODY.decode()
        for _ in range(count):
            self._queue.enqueue(nothing, body, result_ttl=0)

    def enqueue_best(self, count: int) -> None:
        """By pipelines of Redis."""
        queue, body = self._queue, BODY.decode()
        while count > 0:
            queue.enqueue_many([queue.prepare_data(nothing, (body,), result_ttl=0) for _ in range(min(100, count))])
            count -= 100

    def left(self, connection: "Redis") -> int:
        """Waiting."""
        return int(connection.llen("rq:queue:default"))


def worker(url: str) -> Sequence[str]:
    """The command of one worker."""
    return [PYTHON, "-m", "rq.cli", "worker", "--url", url, "--worker-class", "rq.worker.SimpleWorker", "--quiet"]


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """An empty task."""
    mode = "SimpleWorker (no fork), result_ttl 0"
    yield from measure_tasks(home, "rq", max(100, messages // 60), runs, Client, worker, mode)
