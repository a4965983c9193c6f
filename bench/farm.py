"""Many receiving nodes in one process behind one listener: what a daemon with a thousand peers talks to.

Owns that process. Its nodes are real to whoever asks (endpoint, keys, sessions, heads) but keep nothing: their stores
are in memory, and a message is noted and forgotten. So the cost that is measured is that of the sender. Says ``up``
when it listens; answers each line on standard input with how many messages came, when the last one did, and how long
each took (JSON).
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.nodes import KEY

READ_BODY = 4096


class Farm:
    """The process as its owner holds it."""

    def __init__(self, port: int, count: int, log: Path) -> None:
        """Nodes ``n0`` to ``n<count - 1>``, all at one port."""
        words = [sys.executable, "-m", "bench.farm", str(port), str(count)]
        root = str(Path(__file__).resolve().parents[1])
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True, cwd=root
            )
        self.pid = self._process.pid
        self._line()

    def ask(self) -> dict[str, Any]:
        """``count``, ``last`` (as `time.perf_counter`), ``times`` (node → milliseconds), since it was asked before."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the farm of peers ended by itself")
        return line

    def close(self) -> None:
        """End it; safe twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def peers_of(url: str, count: int) -> dict[str, dict[str, object]]:
    """The part of the sender's configuration that names them."""
    return {f"n{number}": {"url": url, "key": KEY, "fetch": False} for number in range(count)}


# ── inside of the process ────────────────────────────────────────────────────────────────────────


class _Notes:
    """What came since somebody asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, list[float]] = {}
        self._last = 0.0

    def note(self, node: str, bodies: Sequence[bytes]) -> None:
        now = time.perf_counter()
        with self._lock:
            self._last = now
            times = self._times.setdefault(node, [])
            for body in bodies:
                try:
                    times.append((now - json.loads(body)["t"]) * 1000)
                except (ValueError, TypeError, KeyError):
                    times.append(0.0)

    def take(self) -> str:
        with self._lock:
            times, self._times = self._times, {}
            return json.dumps({"count": sum(map(len, times.values())), "last": self._last, "times": times})


class _Inboxes:
    """Answers for all of the nodes: the frame says which one is meant."""

    def __init__(self, names: Sequence[str], notes: _Notes) -> None:
        from dropr_core.protocol.frames import HEAD_SIZE

        self.head_size = HEAD_SIZE
        self._endpoints: Mapping[str, Any] = {name: _endpoint(name, notes) for name in names}
        self._pool = ThreadPoolExecutor(2)

    def _of(self, head: bytes) -> Any:
        from dropr_core.errors import BadFrame, Refused
        from dropr_core.protocol.frames import read_head

        try:
            endpoint = self._endpoints.get(read_head(head, 1 << 24).header.receiver)
        except BadFrame as error:
            raise Refused("bad_frame", str(error)) from None
        if endpoint is None:
            raise Refused("unknown_peer", "no such node in this farm")
        return endpoint

    def admit(self, head: bytes, caller: Any) -> int:
        size: int = self._of(head).admit(head, caller)
        return size

    def answer(self, request: bytes | memoryview, caller: Any) -> "Future[bytes]":
        return self._pool.submit(self._answer, request, caller)

    def _answer(self, frame: bytes | memoryview, caller: Any) -> bytes:
        endpoint = self._of(bytes(frame[: self.head_size]))
        request = endpoint.open(frame, caller)
        answer = endpoint.answer(request)
        if not isinstance(answer, bytes):  # a long poll: nobody here waits
            time.sleep(0.05)
            answer = endpoint.answer(request, first=False, final=True)
        return bytes(answer)


def _endpoint(name: str, notes: _Notes) -> Any:
    from dropr_core.builtin.memory_data import InboxData, OutboxData
    from dropr_core.builtin.memory_inbox import MemoryInbox
    from dropr_core.builtin.memory_outbox import MemoryOutbox
    from dropr_core.contracts.context import Context
    from dropr_core.contracts.records import Accepted, Arrival
    from dropr_core.model import envelope
    from dropr_core.protocol.access import Access
    from dropr_core.protocol.endpoint import Endpoint
    from dropr_core.system.clock import SystemClock

    context = Context(node=name, data=Path(), clock=SystemClock(), log=logging.getLogger("bench"), min_free=0)

    class Forgetting(MemoryInbox):
        """Notes what is accepted, keeps the heads, and drops the messages."""

        def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
            kept = [arrival._replace(entries=[]) for arrival in arrivals]
            found = super().accept(kept)
            for arrival, taken in zip(arrivals, found, strict=True):
                if taken.taken:
                    notes.note(name, [bytes(envelope.body_of(job.envelope))[:READ_BODY] for job in arrival.entries])
            return found

    inbox = Forgetting(InboxData(), threading.RLock(), context)
    outbox = MemoryOutbox(OutboxData(), threading.RLock(), context)
    return Endpoint(name, os.urandom(16), {"shop": Access((KEY.encode(),))}, outbox, inbox)


def main(port: int, count: int) -> None:
    """Listen, and answer whoever started it."""
    from dropr_transport_curl import CurlTransport, Options

    logging.basicConfig(level=logging.WARNING)
    notes = _Notes()
    transport = CurlTransport(Options(), logging.getLogger("bench"))
    transport.listen(f"http://127.0.0.1:{port}", _Inboxes([f"n{number}" for number in range(count)], notes))
    print("up", flush=True)
    for _ in sys.stdin:
        print(notes.take(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
