"""Dramatiq on Redis: one process, one thread.

Owns the broker with its empty actor.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.figure import BODY, Figure, by_threads
from bench.peers.redis_tasks import PYTHON, measure_tasks, missing_server, server_version

if TYPE_CHECKING:
    from dramatiq import Actor
    from redis import Redis

NAME = "Dramatiq (Redis)"


def missing() -> str:
    """Why it cannot be measured here."""
    return missing_server() if importlib.util.find_spec("dramatiq") else "dramatiq is not installed"


def version() -> str:
    """Of the library and the server."""
    return f"dramatiq {importlib.metadata.version('dramatiq')}, {server_version()}"


def make_actor() -> "Actor[Any, Any]":
    """The empty actor; worker and sender call this."""
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=os.environ["DROPR_BENCH_REDIS"])
    dramatiq.set_broker(broker)

    def nothing(body: str) -> None:
        del body

    return dramatiq.actor(nothing, broker=broker)


class Client:
    """Its sender. It has no call for many messages (a group is a loop), so its best is threads."""

    best = "8 threads"

    def __init__(self, url: str) -> None:
        os.environ["DROPR_BENCH_REDIS"] = url
        self._actor = make_actor()

    def enqueue(self, count: int) -> None:
        """One by one."""
        actor, body = self._actor, BODY.decode()
        for _ in range(count):
            actor.send(body)

    def enqueue_best(self, count: int) -> None:
        """By threads."""
        by_threads(self.enqueue, count)

    def left(self, connection: "Redis") -> int:
        """Waiting, or with the worker: a message's body is there until it is acknowledged."""
        return int(connection.hlen("dramatiq:default.msgs"))


def worker(url: str) -> Sequence[str]:
    """The command of one worker."""
    del url
    return [
        PYTHON,
        "-m",
        "dramatiq",
        "bench.peers.dramatiq_app",
        "--processes",
        "1",
        "--threads",
        "1",
        "--skip-logging",
    ]


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """An empty task."""
    mode = "one process, one thread, dramatiq_queue_prefetch=100"
    yield from measure_tasks(home, "dramatiq", max(300, messages // 25), runs, Client, worker, mode)
