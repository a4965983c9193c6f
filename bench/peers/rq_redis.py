"""RQ on Redis: `SimpleWorker` in burst mode, which forks nothing.

Owns the calls.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.peers.figure import BODY, Figure
from bench.peers.redis_tasks import PYTHON, measure_tasks, missing_server, server_version

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


def enqueue(url: str, count: int) -> None:
    """Send so many, one by one."""
    from redis import Redis
    from rq import Queue

    queue, body = Queue(connection=Redis.from_url(url)), BODY.decode()
    for _ in range(count):
        queue.enqueue(nothing, body, result_ttl=0)


def worker(url: str) -> Sequence[str]:
    """The command of one worker."""
    return [PYTHON, "-m", "rq.cli", "worker", "--url", url, "--worker-class", "rq.worker.SimpleWorker", "--quiet"]


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """An empty task."""
    mode = "enqueue one by one, SimpleWorker (no fork), result_ttl 0"
    yield from measure_tasks(home, "rq", max(500, messages // 40), runs, enqueue, worker, "rq:queue:default", mode)
