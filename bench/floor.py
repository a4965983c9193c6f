"""What one message cannot do without, on this machine: syncs, wake-ups, an exchange over TCP; and how fast it is.

    PYTHONPATH=. .venv/bin/python bench/floor.py

Owns the raw operations, each after a rest of 8 ms as in P9, and the speed of a processor that is busy and of one that
has slept: a virtual machine may be half as fast in one minute as in another. Must not know dropr.
"""

import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

REST, COUNT = 0.008, 200
PAGES = bytes(2 * 4120)
"""What a small commit appends to SQLite's log: two pages with their heads."""


def median_of(do: Callable[[], object], rest: float = REST) -> float:
    """Milliseconds."""
    times = []
    for _ in range(COUNT):
        if rest:
            time.sleep(rest)
        began = time.perf_counter()
        do()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def append_and_sync(fd: int) -> None:
    os.write(fd, PAGES)
    os.fdatasync(fd)


def echo(line: socket.socket) -> None:
    """Send back what comes, until nobody sends any more."""
    while data := line.recv(4096):
        line.send(data)


def answer_all(read: int, write: int) -> None:
    while os.read(read, 1):
        os.write(write, b"!")


def count() -> int:
    """Some work for the interpreter."""
    seen: dict[int, int] = {}
    for number in range(2000):
        seen[number % 97] = number
    return len(seen)


def main() -> None:
    with tempfile.TemporaryFile() as log:
        sync = median_of(lambda: append_and_sync(log.fileno()))
    (there, back), (read, answer) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(back)
        answer_all(there, answer)
        os._exit(0)
    wake = median_of(lambda: (os.write(back, b"!"), os.read(read, 1))) / 2
    os.close(back)
    os.waitpid(child, 0)
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=echo, args=(door.accept()[0],), daemon=True).start()
        exchange = median_of(lambda: (line.send(bytes(500)), line.recv(4096)))
    print(f"append two pages and sync     {sync:.3f} ms")
    print(f"wake another process          {wake:.3f} ms")
    print(f"500 bytes there and back      {exchange:.3f} ms")
    print(f"two syncs, three wake-ups, half an exchange: {2 * sync + 3 * wake + exchange / 2:.2f} ms")
    print(f"the same work for a busy processor {median_of(count, 0.0):.3f} ms, after a rest {median_of(count):.3f} ms")


if __name__ == "__main__":
    main()
