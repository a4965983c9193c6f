"""What a measurement of somebody else's queue tells, and how its module is found.

Owns the record. Each peer is a module of this folder with `NAME`, `missing()`, `version()` and
`measure(home, messages)`; it prints nothing, and imports its client only when it is asked to measure.
"""

import importlib
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

import msgspec

BODY = os.urandom(100).hex().encode()
"""200 bytes that every client can carry as text too."""


class Figure(msgspec.Struct, frozen=True):
    """One rate of one peer."""

    what: str
    """send, send 8, send 1000, take, end to end, latency p50, latency p99, task, task in the best mode"""
    value: float
    """Messages a second; milliseconds where ``what`` begins with latency."""
    durable: bool
    """Whether success meant that it was on stable storage; else it is what the peer ships as its default."""
    mode: str
    """The client's best mode that was used, and what makes it durable or not."""
    command: str
    """What was run, so that its maintainers can check it."""
    spread: float = 0.0
    """Largest minus smallest of the runs, divided by the median."""


Latencies = Callable[[int], list[float]]
"""Sends so many single messages through an idle system; the seconds of each until it is in the consumer's hands."""


class Peer(Protocol):
    """What each module of this folder offers."""

    NAME: str

    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""
        ...

    def version(self) -> str:
        """Of the server and of the client."""
        ...

    def measure(self, home: Path, messages: int, runs: int) -> Iterator[Figure]:
        """Start it below ``home``, measure, end it. Gives each figure when it is known."""
        ...

    def idle(self, home: Path) -> AbstractContextManager[dict[str, Latencies]]:
        """While the block runs: systems with nothing to do, by what they are called. Only who carries between nodes."""
        ...


def load(name: str) -> Peer:
    """The module of a peer."""
    module: ModuleType = importlib.import_module(f"bench.peers.{name}")
    return cast("Peer", module)


def repeated(runs: int, once: Callable[[], float]) -> tuple[float, float]:
    """Median and spread of some runs after one that warms up."""
    once()
    values = sorted(once() for _ in range(runs))
    middle = statistics.median(values)
    return middle, (values[-1] - values[0]) / middle


def by_threads(enqueue: Callable[[int], None], count: int, threads: int = 8) -> None:
    """Have so many threads enqueue their share of ``count`` each."""
    with ThreadPoolExecutor(threads) as pool:
        shares = [count // threads + (number < count % threads) for number in range(threads)]
        for done in [pool.submit(enqueue, share) for share in shares]:
            done.result()
