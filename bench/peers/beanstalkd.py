"""beanstalkd with its log synced at each write (-b -f0), and without a log as it ships.

Owns a pipelining client. One beanstalkd carries nothing to another machine, so there is no figure from end to end.
"""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, repeated
from bench.peers.servers import free_port, server

NAME = "beanstalkd"


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if shutil.which("beanstalkd") else "beanstalkd is not installed"


def version() -> str:
    """The server's; the client is a socket."""
    told = subprocess.run(["beanstalkd", "-v"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{told}, client bench/peers/beanstalkd.py"


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 16)

    def one_by_one(self, work: Callable[[int], None], count: int) -> None:
        """So many calls for one each."""
        for _ in range(count):
            work(1)

    def put(self, count: int) -> None:
        """Put so many, all in one write."""
        self._socket.sendall(b"put 5 0 60 %d\r\n%s\r\n" % (len(BODY), BODY) * count)
        for _ in range(count):
            assert self._file.readline().startswith(b"INSERTED")

    def take(self, count: int) -> None:
        """Reserve and delete so many, each kind in one write."""
        self._socket.sendall(b"reserve\r\n" * count)
        numbers = []
        for _ in range(count):
            _, number, size = self._file.readline().split()
            self._file.read(int(size) + 2)
            numbers.append(number)
        self._socket.sendall(b"".join(b"delete %s\r\n" % number for number in numbers))
        for _ in range(count):
            assert self._file.readline() == b"DELETED\r\n"

    def close(self) -> None:
        """Close."""
        self._file.close()
        self._socket.close()


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Put and reserve + delete: one by one, from eight connections, pipelined."""
    for durable in (True, False):
        port = free_port()
        here = home / f"beanstalkd-{durable}"
        here.mkdir()
        options = ["-b", str(here), "-f0"] if durable else []
        command = ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), *options]
        word = "-b DIR -f0" if durable else "default: no log"
        with server(command, here, port):
            client = Client(port)
            few = max(400, messages // 20)
            for what, mode, once in (
                ("send", "one by one", lambda: timed(few, lambda: client.one_by_one(client.put, few))),  # noqa: B023
                ("take", "one by one", lambda: timed(few, lambda: client.one_by_one(client.take, few))),  # noqa: B023
                ("send 8", "8 connections", lambda: eight(port, few)),  # noqa: B023
                ("send 1000", "1000 pipelined", lambda: timed(few, lambda: in_parts(client.put, few, 1000))),  # noqa: B023
                ("take 1000", "100 pipelined", lambda: timed(few, lambda: in_parts(client.take, few, 100))),  # noqa: B023
            ):
                rate, spread = repeated(runs, once)
                yield Figure(what, rate, durable, f"{mode}; {word}", f"beanstalkd ({word})", spread)
            client.close()


def timed(count: int, work: Callable[[], object]) -> float:
    """So many a second."""
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def in_parts(work: Callable[[int], None], count: int, size: int) -> None:
    """Call it for parts of this size."""
    while count:
        work(min(size, count))
        count -= min(size, count)


def eight(port: int, count: int) -> float:
    """Puts a second of eight connections together, each one by one."""
    clients = [Client(port) for _ in range(8)]
    threads = [threading.Thread(target=one.one_by_one, args=(one.put, count // 8)) for one in clients]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    for one in clients:
        one.close()
    return count / took
