"""A lean client: many connections of one thread, each of which says the next thing when the last was answered.

Owns the loop. It costs some ten microseconds of processor for each answer and has no threads that wake each other, so
what is measured is the server. Must not know any protocol.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence

Reply = Callable[[bytes], bytes | None]
"""What to say next, after such an answer; None: that was the last one."""
BUFFER = 1 << 16


def lockstep(port: int, begin: Sequence[tuple[bytes, Reply]]) -> float:
    """Seconds until all conversations are over. Each has a connection of its own, and answers that fit into one read:
    they are small.
    """
    sockets = [_connect(port) for _ in begin]
    replies = {one.fileno(): (one, reply) for one, (_, reply) in zip(sockets, begin, strict=True)}
    poll = select.epoll()
    for one in sockets:
        poll.register(one, select.EPOLLIN)
    left = len(sockets)
    started = time.perf_counter()
    for one, (first, _) in zip(sockets, begin, strict=True):
        one.send(first)
    while left:
        events = poll.poll(60)
        if not events:
            raise TimeoutError("the server answers nothing")
        for number, _ in events:
            one, reply = replies[number]
            data = one.recv(BUFFER)
            if not data:
                raise ConnectionError("the server has hung up")
            following = reply(data)
            if following is not None:
                one.send(following)
            else:
                left -= 1
    took = time.perf_counter() - started
    poll.close()
    for one in sockets:
        one.close()
    return took


def _connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=60)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
