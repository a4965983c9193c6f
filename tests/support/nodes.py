"""Real nodes for tests: YAML files with free ports, real processes, bounded waiting, clean ends.

Owns `Road` (some nodes in one directory, each with its file and its processes) and `eventually`.
Must not know what is tested.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml

from dropr_core.api.node import Node
from dropr_core.system.presence import living

PATIENCE = 60.0
"""Seconds after which something that should have happened is taken as a failure. Never a pause."""


def eventually(condition: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
    """Ask until the answer is true and return it; fail after ``timeout`` seconds. Exceptions count as no."""
    ends = time.monotonic() + timeout
    pause = 0.002
    last: object = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except AssertionError as error:
            last = error
        if time.monotonic() >= ends:
            raise AssertionError(f"not within {timeout:.0f} s: {what or condition}; the last answer was {last!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


PORTS = range(10_240, 32_768)
"""Below those that the system gives to whoever asks for any: no connection takes a port before its server does."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on now; by chance, so that parallel runs do not meet."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("a hundred ports are taken")


def key_of(one: str, other: str) -> str:
    """The key of a pair of nodes; not secret, for it stands in the test."""
    return "-".join(["key", *sorted((one, other)), "0123456789abcdef"])


DROPR = ("-m", "dropr_core")


class Process:
    """One real process of a node, its output in a file."""

    def __init__(
        self, role: str, file: Path, log: Path, env: Mapping[str, str], *words: str, program: Sequence[str] = DROPR
    ) -> None:
        self.role, self.log = role, log
        self._command = [sys.executable, *program, role, *words, "-c", str(file), "-v"]
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> "Process":
        """Start it (again)."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has written so far, over all its lives."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(timeout)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; safe twice."""
        self.signal(signal.SIGKILL)
        self.signal(signal.SIGCONT)
        self.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()


class Place:
    """One node of a road: its file, and what runs for it."""

    program: Sequence[str] = DROPR
    """What Python is started with for its processes."""

    def __init__(self, road: "Road", name: str, config: dict[str, Any]) -> None:
        self.road, self.name, self.config = road, name, config
        self.directory = road.directory / name
        self.directory.mkdir()
        self.file = self.directory / "node.yaml"
        self.write()
        self.processes: list[Process] = []
        self.env: Mapping[str, str] = {}
        """What the environment of its processes has besides; another version of dropr, say."""

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    def write(self, **changes: Any) -> None:
        """Write the file (again), with changes at its top level."""
        self.config.update(changes)
        self.file.write_text(yaml.safe_dump(self.config))

    def run(self, role: str, *words: str, ready: bool = True) -> Process:
        """Start a process of the node; with ``ready``, return once it says that it is up."""
        log = self.directory / f"{role}-{len(self.processes)}.log"
        process = Process(role, self.file, log, {**self.road.env, **self.env}, *words, program=self.program)
        self.processes.append(process)
        if ready:
            self.await_ready(process)
        return process

    def await_ready(self, process: Process, times: int = 1) -> None:
        """Wait until a process has said ``times`` times that it is up."""
        word = {
            "daemon": "daemon of",
            "server": "listens on",
            "worker": "handles",
            "gateway": "listens on",
            "monitor": "the page of",
        }[process.role]

        def ready() -> bool:
            if not process.alive:
                raise RuntimeError(f"{process.role} of {self.name} ended with {process.wait()}:\n{process.text}")
            return process.text.count(word) >= times

        eventually(ready, what=f"{process.role} of {self.name} is up")

    def doors(self) -> dict[str, list[str]]:
        """The URLs at which the living gateway process listens, by the name of the gateway."""

        def report() -> dict[str, list[str]] | None:
            found = list(living(self.data / "run", "gateway"))
            return found[-1]["urls"] if found else None

        return cast("dict[str, list[str]]", eventually(report, what="a gateway that reports its doors"))

    def open(self) -> Node:
        """The node in this process; the caller closes it."""
        return Node.open(self.file)

    @contextmanager
    def opened(self) -> Iterator[Node]:
        """The node in this process for the time of a block."""
        with self.open() as node:
            yield node


class Road:
    """Some nodes that know each other, in one directory, on free ports of the loopback address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.places: dict[str, Place] = {}
        self.env: dict[str, str] = {"PYTHONPATH": str(directory), "PYTHONUNBUFFERED": "1"}
        self.urls: dict[str, str] = {}

    def build(self, *names: str, **fields: Mapping[str, Any]) -> list[Place]:
        """Nodes of these names, each the peer of each other. ``fields``: more of a node's file, by its name."""
        for name in names:
            self.urls[name] = f"http://127.0.0.1:{free_port()}"
        for name in names:
            others = [other for other in names if other != name]
            config: dict[str, Any] = {
                "node": name,
                "data": "./data",
                "listen": [self.urls[name]],
                "limits": {"min_free": 0},
                "peers": {other: {"url": self.urls[other], "key": key_of(name, other)} for other in others},
                "delivery": {"backoff_min": "20ms", "backoff_max": "200ms"},
            }
            config.update(fields.get(name, {}))
            self.places[name] = Place(self, name, config)
        return [self.places[name] for name in names]

    def write_handlers(self, text: str) -> str:
        """A module with handlers that the workers of this road can import; returns its name."""
        name = f"handlers_{self.directory.name.replace('-', '_')}"
        (self.directory / f"{name}.py").write_text(text)
        return name

    def close(self) -> None:
        """Kill what still runs; safe twice."""
        for place in self.places.values():
            for process in place.processes:
                process.kill()


def take_all(node: Node, *channels: str, at_least: int = 0) -> list[Any]:
    """``at_least`` so many messages of these channels, as soon as they come, and all others that are there."""
    out: list[Any] = []
    if at_least:
        for batch in node.receive_batches(*channels, limit=at_least, timeout=PATIENCE):
            out.extend(_read(batch))
    for batch in node.receive_batches(*channels, wait=0):
        out.extend(_read(batch))
    return out


def _read(batch: list[Any]) -> list[Any]:
    """Large bodies go with their acknowledgement: read them before."""
    for message in batch:
        assert message.body is not None
    return batch


def numbers_by_lane(received: list[Any]) -> dict[tuple[str, int], list[int]]:
    """(channel, priority) → the numbers that the bodies say, in the order in which they came."""
    out: dict[tuple[str, int], list[int]] = {}
    for message in received:
        out.setdefault((message.channel, message.priority), []).append(int(message.body))
    return out


__all__ = ["PATIENCE", "Place", "Process", "Road", "eventually", "free_port", "key_of", "numbers_by_lane", "take_all"]
