"""What Celery, Dramatiq and RQ have in common here: a Redis server, and tasks that do nothing.

Owns the server and the counting: so many tasks are enqueued, and then handled by one worker process of the peer, whose
start does not count. Durable is ``appendonly yes, appendfsync always``. Must not know which library it is.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.peers.figure import Figure
from bench.peers.servers import NotStarted, free_port, server, tail

if TYPE_CHECKING:
    from redis import Redis

HERE = Path(__file__).resolve().parent
BEST = "task in the best mode"
SETTINGS = {"dramatiq_queue_prefetch": "100"}
"""For the workers. Dramatiq rests for milliseconds whenever it holds as much; its default is 2."""


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


class Client(Protocol):
    """What one of the libraries can do."""

    best: str
    """What its best way to enqueue many is."""

    def enqueue(self, count: int) -> None:
        """So many, one by one."""
        ...

    def enqueue_best(self, count: int) -> None:
        """So many, in its best way."""
        ...

    def left(self, connection: "Redis") -> int:
        """How many tasks are not done: in the queue, or with a worker that has not acknowledged them."""
        ...


def measure_tasks(
    home: Path,
    name: str,
    messages: int,
    runs: int,
    client: Callable[[str], Client],
    worker: Callable[[str], Sequence[str]],
    mode: str,
) -> Iterator[Figure]:
    """Enqueue one by one and in the best way, then have one worker handle all of both: it does not know the difference.

    ``client``: made anew for a server's URL; ``worker``: the command.
    """
    from redis import Redis

    for durable in (True, False):
        word = "appendfsync always" if durable else "default: no log"
        rates: dict[str, list[float]] = {what: [] for what in ("send", "send in the best mode", "task", BEST)}
        with redis(home / f"{name}-{durable}", durable=durable) as url:
            connection, ours = Redis.from_url(url), client(url)
            ours.enqueue(1)  # what is made at the first call does not count
            connection.flushall()
            for _ in range(runs):
                sent = []
                for enqueue in (ours.enqueue, ours.enqueue_best):
                    begun = time.perf_counter()
                    enqueue(messages)
                    sent.append(time.perf_counter() - begun)
                handled = handle(connection, home, worker(url), ours.left, messages * 2, url) / 2
                for what, took in zip(rates, (*sent, sent[0] + handled, sent[1] + handled), strict=True):
                    rates[what].append(messages / took)
            best = ours.best
        command = " ".join(Path(word).name for word in worker("redis://…"))
        for what, values in rates.items():
            middle = statistics.median(values)
            how = f"{best if 'best' in what else 'one by one'}, {mode}; {word}"
            yield Figure(what, middle, durable, how, command, (max(values) - min(values)) / middle)


def handle(
    connection: "Redis", home: Path, command: Sequence[str], count: Callable[["Redis"], int], messages: int, url: str
) -> float:
    """Seconds that a worker takes for what is enqueued, from the first that is gone to the last."""
    log = home / "worker.log"
    with log.open("wb") as out:
        environment = {**os.environ, **SETTINGS, "DROPR_BENCH_REDIS": url, "PYTHONPATH": str(HERE.parent.parent)}
        child = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd=HERE.parent.parent, start_new_session=True
        )
    try:
        left, begun, limit = messages, 0.0, time.monotonic() + 120
        while left:
            left = count(connection)
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
