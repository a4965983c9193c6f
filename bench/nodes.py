"""Real nodes for a figure: a shop that sends, a store that receives, and their processes.

Owns their files, ports and processes: every process that it starts it ends. Must not know what is measured.
"""

import contextlib
import os
import shutil
import signal
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

from bench.figure import Run, Skipped
from dropr_core.bench.usage import Usage, memory_of, usage_of
from dropr_core.plugin.registry import keypair

KEY = "k" * 40
BODY = os.urandom(200)
"""What a message carries where nothing else is said."""
PATIENCE = 60.0
"""Seconds that a process gets to be up, or to end."""
READY = {"daemon": "daemon of", "server": "listens on", "worker": "handles"}
"""What the log of a process says once it serves."""


def free_port() -> int:
    """A port of the loopback interface that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """One process of a node, its output in a file."""

    def __init__(self, name: str, words: list[str], log: Path) -> None:
        """``words``: what follows ``python``."""
        self.name, self.log = name, log
        with log.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid

    def await_ready(self, word: str) -> None:
        """Return once it has written this word."""
        ends = time.monotonic() + PATIENCE
        while word not in self.log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"{self.name} is not up: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes that it has now."""
        return memory_of(self.pid)

    def usage(self) -> Usage:
        """What it has used so far."""
        return usage_of(self.pid)

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait; safe twice."""
        if self._process.poll() is None:
            self.send_signal(number)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self._process.kill()
            self._process.wait(PATIENCE)


def has_role(role: str, file: Path) -> list[str]:
    """The words after ``python`` that start a process of a node."""
    return ["-m", "dropr_core", role, "-c", str(file)]


class Pair:
    """A shop with a daemon, and a store with a server, on one road."""

    def __init__(
        self, directory: Path, *, storage: str = "sqlite", transport: str = "curl",
        shop: Mapping[str, Any] | None = None, store: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """``shop``, ``store``: more of their files."""
        self.directory = directory
        self.port = free_port()
        self.processes: dict[str, Process] = {}
        listen, ask, transports = _road(transport, self.port)
        common: dict[str, Any] = {"storage": storage, "limits": {"min_free": 0}} | transports
        self.shop = self._write("shop", {
            "node": "shop", **common, "data": "./shop",
            "peers": {"store": {"url": ask, "key": KEY}}, "channels": {"orders": {"to": "store"}}, **(shop or {}),
        })  # fmt: skip
        self.store = self._write("store", {
            "node": "store", **common, "data": "./store", "listen": [listen],
            "peers": {"shop": {"mode": "pull", "key": KEY}}, "channels": {"orders": {}}, **(store or {}),
        })  # fmt: skip
        self.ask = ask

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        return file

    def start(self, role: str, file: Path) -> Process:
        """Start a process of one of the two, and wait until it serves."""
        name = f"{role} of {file.stem}"
        process = Process(name, has_role(role, file), self.directory / f"{role}-{file.stem}.log")
        self.processes[name] = process
        process.await_ready(READY[role])
        return process

    def start_both(self) -> tuple[Process, Process]:
        """The daemon of the shop and the server of the store."""
        server = self.start("server", self.store)
        return self.start("daemon", self.shop), server

    def lead_through(self, port: int) -> None:
        """Have the shop ask at another port, which leads to the store's. Before its daemon is started."""
        text = self.shop.read_text(encoding="utf-8").replace(f":{self.port}", f":{port}")
        self.shop.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """End all processes; safe twice."""
        processes, self.processes = self.processes, {}
        for process in reversed(processes.values()):
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _road(transport: str, port: int) -> tuple[str, str, dict[str, Any]]:
    """Where the store listens, where the shop asks, and what both say about the transport."""
    if transport == "curl":
        return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}", {}
    listen, ask = f"zmq+tcp://127.0.0.1:{port}", f"zmq+tcp://127.0.0.1:{port}"
    if transport == "zmq-plain":
        return listen, ask, {"transports": {"zmq": {"curve": False}}}
    secret, public = keypair("zmq")
    return listen, f"{ask}?curve={public}", {"transports": {"zmq": {"key": secret}}}


def node_file(run: Run, storage: str, **more: Any) -> Path:
    """The file of a node that nobody runs processes for: to send into, or to consume from."""
    directory = run.directory(storage)
    file = directory / "shop.yaml"
    config = {
        "node": "shop", "storage": storage, "limits": {"min_free": 0}, "data": "./data",
        "peers": {"store": {"url": "http://127.0.0.1:9", "key": KEY}}, "channels": {"orders": {"to": "store"}}, **more,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file


PRODUCER = """
import sys, os, dropr_core as dropr
body = os.urandom(int(sys.argv[3]))
with dropr.open(sys.argv[1]) as node:
    print("up", flush=True)
    for line in sys.stdin:
        count, size = map(int, line.split())
        for _ in range(count // size):
            with node.batch() as batch:
                for _ in range(size):
                    batch.send(body, channel=sys.argv[2])
        print(count, flush=True)
"""


class Producer:
    """A process that sends batches when it is told to."""

    program = PRODUCER

    def __init__(self, file: Path, channel: str = "orders", size: int = 200) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.program, str(file), channel, str(size)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._answer()

    def start(self, count: int, batch: int = 1000) -> None:
        """Have it send; returns at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count} {batch}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Until it has sent all."""
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the producer ended by itself; its error is above")

    def close(self) -> None:
        """End it; safe twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(PATIENCE)


class Watch:
    """Watches the memory of processes while a block runs, and what they use; by their names."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: usage_of(pid) for name, pid in pids.items()}
        self.idle = {name: memory_of(pid) for name, pid in pids.items()}
        self.peak = dict(self.idle)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="bench-watch", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for name, pid in self._pids.items():
                with contextlib.suppress(OSError):
                    self.peak[name] = max(self.peak[name], memory_of(pid))

    def end(self) -> dict[str, Usage]:
        """What each has used since the beginning."""
        self._over.set()
        self._thread.join()
        return {name: usage_of(pid).since(self._before[name]) for name, pid in self._pids.items()}


def need(*modules: str) -> None:
    """Skip the figure if one of these cannot be imported."""
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            raise Skipped(f"{module} is not installed") from None


@contextlib.contextmanager
def kept_open(*closers: Any) -> Iterator[None]:
    """Close all of these at the end, last first."""
    with contextlib.ExitStack() as stack:
        for one in closers:
            stack.callback(one.close)
        yield
