"""Clients of memcache for a measurement, each a process of its own: the same against any server.

Owns them. Must not know who is asked.
"""

import multiprocessing
import socket
import time
from multiprocessing.synchronize import Barrier as _Barrier
from typing import Any, Literal

import attrs

Way = Literal["set", "get"]


@attrs.frozen
class Load:
    """What all clients together do."""

    clients: int
    each: int
    """Messages of each client."""
    ahead: int
    """Requests that a client sends before it reads their answers."""
    size: int = 200
    """Bytes of a body."""


def rate(port: int, load: Load, way: Way) -> float:
    """Messages a second, all clients together. Raises AssertionError if an answer is not what it should be."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(load.clients), context.Queue()
    clients = [
        context.Process(target=_client, args=(port, load, way, barrier, told), daemon=True) for _ in range(load.clients)
    ]
    for client in clients:
        client.start()
    times = [told.get(timeout=300) for _ in clients]
    for client in clients:
        client.join()
    if wrong := [text for _, _, text in times if text]:
        raise AssertionError(wrong[0])
    took: float = max(end for _, end, _ in times) - min(begin for begin, _, _ in times)
    return load.clients * load.each / took


def _client(port: int, load: Load, way: Way, barrier: _Barrier, told: Any) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb", buffering=1 << 16)
        body = b"x" * load.size
        request = b"set bench 0 0 %d\r\n%s\r\n" % (load.size, body) if way == "set" else b"get bench\r\n"
        wanted = b"STORED\r\n" if way == "set" else b"VALUE bench 0 %d\r\n%s\r\nEND\r\n" % (load.size, body)
        wrong = ""
        barrier.wait()
        begin, left = time.monotonic(), load.each  # the same clock in all processes
        while left and not wrong:
            now = min(left, load.ahead)
            connection.sendall(request * now)
            if (got := answers.read(len(wanted) * now)) != wanted * now:
                wrong = f"{way} was answered with {got[:100]!r}"
            left -= now
        told.put((begin, time.monotonic(), wrong))


__all__ = ["Load", "rate"]
