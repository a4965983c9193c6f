"""What Celery, Dramatiq and RQ have in common here: a Redis server, and tasks that do nothing.

Owns the server and the counting: so many tasks are enqueued, and then handled by one worker process of the peer, whose
start does not count. Durable is ``appendonly yes, appendfsync always``. Must not know which library it is.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.figure import Figure
from bench.peers.servers import NotStarted, free_port, server, tail

if TYPE_CHECKING:
    from redis import Redis

HERE = Path(__file__).resolve().parent


def missing_server() -> str:
    """Why it cannot be measured here."""
    if not importlib.util.find_spec("redis"):
        return "the client redis is not installed"
    return "" if shutil.which("redis-server") else "redis-server is not installed"


def server_version() -> str:
    """Of Redis."""
    told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    return f"Redis {told.split('v=')[1].split()[0]}"


@contextlib.contextmanager
def redis(home: Path, *, durable: bool) -> Iterator[str]:
    """The URL of a server that runs while the block does."""
    port = free_port()
    options = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--save", "", "--appendonly", "no"]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", ".", *options]
    with server(command, home, port):
        yield f"redis://127.0.0.1:{port}/0"


def measure_tasks(
    home: Path,
    name: str,
    messages: int,
    runs: int,
    enqueue: Callable[[str, int], None],
    worker: Callable[[str], Sequence[str]],
    queue: str,
    mode: str,
) -> Iterator[Figure]:
    """Enqueue one by one; enqueue and handle. ``worker``: the command; ``queue``: the Redis list that becomes empty."""
    from redis import Redis

    for durable in (True, False):
        word = "appendfsync always" if durable else "default: no log"
        sends, tasks = [], []
        with redis(home / f"{name}-{durable}", durable=durable) as url:
            connection = Redis.from_url(url)
            for number in range(runs + 1):
                begun = time.perf_counter()
                enqueue(url, messages)
                sent = time.perf_counter() - begun
                handled = handle(connection, home, worker(url), queue, messages, url)
                if number:  # the first warms up
                    sends.append(messages / sent)
                    tasks.append(messages / (sent + handled))
        command = " ".join(Path(word).name for word in worker("redis://…"))
        for what, values in (("send", sorted(sends)), ("task", sorted(tasks))):
            middle = values[len(values) // 2]
            yield Figure(what, middle, durable, f"{mode}; {word}", command, (values[-1] - values[0]) / middle)


def handle(connection: "Redis", home: Path, command: Sequence[str], queue: str, messages: int, url: str) -> float:
    """Seconds that a worker takes for what is enqueued, from the first that is gone to the last."""
    log = home / "worker.log"
    with log.open("wb") as out:
        environment = {**os.environ, "DROPR_BENCH_REDIS": url, "PYTHONPATH": str(HERE.parent.parent)}
        child = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=HERE.parent.parent, start_new_session=True
        )
    try:
        left, begun, limit = messages, 0.0, time.monotonic() + 120
        while left:
            left = int(connection.llen(queue))
            if not begun and left < messages:
                begun, first = time.perf_counter(), messages - left
            if child.poll() is not None or time.monotonic() > limit:
                raise NotStarted(f"the worker handled {messages - left} of {messages}: {tail(log)}")
            time.sleep(0.0005)
        took = time.perf_counter() - begun
        return took * messages / max(1, messages - first)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(20)


PYTHON = sys.executable
