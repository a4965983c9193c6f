"""Celery on Redis: one worker process with one thread (`--pool solo`), results off.

Owns the application with its empty task. `acks_late` would be needed for a task to survive its worker; it is on.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.figure import BODY, Figure, by_threads
from bench.peers.redis_tasks import PYTHON, measure_tasks, missing_server, server_version

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

NAME = "Celery (Redis)"


def missing() -> str:
    """Why it cannot be measured here."""
    return missing_server() if importlib.util.find_spec("celery") else "celery is not installed"


def version() -> str:
    """Of the library and the server."""
    return f"celery {importlib.metadata.version('celery')}, {server_version()}"


def make_app() -> "Celery":
    """The application of the worker and of the sender; the worker's command names this function's result."""
    from celery import Celery

    app = Celery("bench", broker=os.environ["DROPR_BENCH_REDIS"])
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=100)

    def nothing(body: str) -> None:
        del body

    app.task(nothing, name="nothing")

    return app


class Client:
    """Its sender. It has no call for many tasks (a group is a loop), so its best is threads, each with a connection."""

    best = "8 threads"

    def __init__(self, url: str) -> None:
        os.environ["DROPR_BENCH_REDIS"] = url
        self._app = make_app()

    def enqueue(self, count: int) -> None:
        """One by one, by one producer."""
        app, body = self._app, BODY.decode()
        with app.pool.acquire(block=True) as connection, app.amqp.Producer(connection) as producer:
            for _ in range(count):
                app.send_task("nothing", (body,), producer=producer)

    def enqueue_best(self, count: int) -> None:
        """By threads."""
        by_threads(self.enqueue, count)

    def left(self, connection: "Redis") -> int:
        """Waiting, or with the worker."""
        return int(connection.llen("celery")) + int(connection.hlen("unacked"))


def worker(url: str) -> Sequence[str]:
    """The command of one worker."""
    del url
    return [PYTHON, "-m", "celery", "-A", "bench.peers.celery_app", "worker", "--pool", "solo", "--without-gossip",
            "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]  # fmt: skip


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """An empty task."""
    mode = "acks_late, worker --pool solo, prefetch 100"
    yield from measure_tasks(home, "celery", max(300, messages // 25), runs, Client, worker, mode)
