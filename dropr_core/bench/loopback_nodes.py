"""Two nodes on this machine, real processes, one road: what a message costs from `send` to the consumer.

Owns a daemon and a server, which it starts and ends. Must not know configurations of users.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from dropr_core.api.node import Node
from dropr_core.bench.row import Row, Say
from dropr_core.bench.samples import Samples
from dropr_core.errors import DroprError

PATIENCE = 30.0
"""Seconds that a process gets to be up, or a message to arrive."""
BODY = os.urandom(200)


class LoopbackNodes:
    """A sender with a daemon and a receiver with a server."""

    def __init__(self, directory: Path, storage: Mapping[str, Any]) -> None:
        """Starts them. Raises DroprError if one of them does not get up."""
        self._directory = directory
        self._children: list[tuple[subprocess.Popen[bytes], Path]] = []
        key, url = secrets.token_hex(32), f"http://127.0.0.1:{_free_port()}"
        common = {"storage": dict(storage), "limits": {"min_free": 0}}
        self.here = self._write("here", common | {"peers": {"there": {"url": url, "key": key, "fetch": False}}})
        peers = {"here": {"mode": "pull", "key": key}}
        self.there = self._write("there", common | {"listen": [url], "peers": peers, "channels": {"bench": {}}})
        try:
            self._start("server", self.there, "listens on")
            self._start("daemon", self.here, "daemon of")
        except BaseException:
            self.close()
            raise

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        file = self._directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"node": name, "data": f"./{name}", **config}), encoding="utf-8")
        file.chmod(0o600)
        return file

    def _start(self, role: str, file: Path, word: str) -> None:
        log = self._directory / f"{role}.log"
        with log.open("wb") as out:
            words = [sys.executable, "-m", "dropr_core", role, "-c", str(file)]
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0)
        self._children.append((child, log))
        ends = time.monotonic() + PATIENCE
        while word not in (said := log.read_text(encoding="utf-8", errors="replace")):
            if child.poll() is not None or time.monotonic() > ends:
                raise DroprError(f"the {role} of the bench is not up: {said.strip()[-300:] or 'no word'}")
            time.sleep(0.01)

    def close(self) -> None:
        """End the processes; safe twice."""
        children, self._children = self._children, []
        for child, _ in children:
            child.terminate()
        for child, _ in children:
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def measure_nodes(
    directory: Path, storage: Mapping[str, Any], say: Say, *, rounds: int, counts: tuple[int, int]
) -> Iterator[Row]:
    """Throughput in batches of 1000, and what one message takes through idle nodes; ``counts``: so many of each.

    Raises DroprError.
    """
    count, singles = counts
    say("two nodes on this machine: starting them")
    with LoopbackNodes(directory, storage) as nodes, Node.open(nodes.here) as here, Node.open(nodes.there) as there:
        say("two nodes on this machine: many messages")
        rates = [_carry(here, there, count) for _ in range(rounds + 1)]
        yield Row("nodes", "end to end over loopback, batches of 1000", "/s", Samples(rates[1:]))
        say("two nodes on this machine: one message at a time")
        times = [Samples(_one_by_one(here, there, singles)) for _ in range(rounds + 1)][1:]
        yield Row("nodes", "one message, send to consumer, median", "ms", Samples([one.median for one in times]))
        yield Row("nodes", "one message, send to consumer, 99 %", "ms",
                  Samples([one.percentile(0.99) for one in times]))  # fmt: skip


def _carry(here: Node, there: Node, count: int) -> float:
    def send() -> None:
        for _ in range(count // 1000):
            with here.batch() as batch:
                for _ in range(1000):
                    batch.send(BODY, to="there", channel="bench")

    producer = threading.Thread(target=send)
    started, got = time.perf_counter(), 0
    producer.start()
    for page in there.receive_batches("bench", size=1000, limit=count, wait=PATIENCE):
        got += len(page)
    spent = time.perf_counter() - started
    producer.join()
    if got < count:
        raise DroprError(f"only {got} of {count} messages came over loopback within {PATIENCE:.0f} s")
    return got / spent


def _one_by_one(here: Node, there: Node, count: int) -> list[float]:
    """Milliseconds of each."""
    times = []
    for _ in range(count):
        here.send(json.dumps(time.perf_counter()).encode(), to="there", channel="bench")
        for received in there.receive("bench", limit=1, wait=PATIENCE):
            times.append((time.perf_counter() - json.loads(received.body)) * 1000)
    if len(times) < count:
        raise DroprError(f"only {len(times)} of {count} messages came over loopback within {PATIENCE:.0f} s")
    return times


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
