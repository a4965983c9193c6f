"""The memcache door beside memcached in the same run, with the same clients.

Owns the comparison. The door is durable: `STORED` is said after the flush. memcached keeps nothing, which is said
with the figure. Must not know the protocol.
"""

import shutil
from pathlib import Path

import yaml

from bench.figure import Figure, Run, Skipped, at_least
from bench.memcache_side import Load, Way, rate
from bench.nodes import Process, free_port
from bench.peers.servers import server
from dropr_core.bench.samples import Samples

WAYS: tuple[Way, ...] = ("set", "get")
LOADS = {
    "1 client, one by one": Load(1, 400, 1),
    "8 clients, one by one": Load(8, 200, 1),
    "50 clients, one by one": Load(50, 60, 1),
    "8 clients, 100 ahead": Load(8, 3000, 100),
}


def door(home: Path, port: int, storage: str) -> Process:
    """A node with this door alone."""
    file = home / "node.yaml"
    listen = f"tcp://127.0.0.1:{port}"
    file.write_text(
        yaml.safe_dump(
            {"node": "bench", "data": "./data", "storage": storage, "gateways": {"memcache": {"listen": listen}}}
        )
    )
    process = Process("gateway", ["-m", "dropr_core", "gateway", "-c", str(file)], home / "gateway.log")
    process.await_ready("listens on")
    return process


def measure(run: Run) -> None:
    """Set, then get all of it, in turns with memcached."""
    program = shutil.which("memcached")
    if not program:
        raise Skipped("memcached is not installed")
    theirs = free_port()
    command = [program, "-u", "root", "-l", "127.0.0.1", "-p", str(theirs), "-m", "256"]
    with server(command, run.directory("memcached"), theirs):
        for storage in run.storages:
            ours = free_port()
            process = door(run.directory(f"door-{storage}"), ours, storage)
            try:
                _compare(run, storage, ours, theirs)
            finally:
                process.stop()


def _compare(run: Run, storage: str, ours: int, theirs: int) -> None:
    for words, load in LOADS.items():
        smaller = Load(load.clients, run.count(load.each, load.ahead), load.ahead)

        def both(port: int, load: Load = smaller) -> dict[Way, float]:
            return {way: rate(port, load, way) for way in WAYS}  # a get of each that was set

        found: dict[tuple[str, Way], list[float]] = {}
        for _ in range(run.rounds + 1):
            for name, port in (("door", ours), ("memcached", theirs)):
                for way, value in both(port).items():
                    found.setdefault((name, way), []).append(value)
        _read(run, f"{storage}, {words}", found)


def _read(run: Run, label: str, found: dict[tuple[str, Way], list[float]]) -> None:
    for way in WAYS:
        mine, original = Samples(found["door", way][1:]), Samples(found["memcached", way][1:])
        run.read(f"{label}: {way}", "/s", mine, raw=original, raw_label="memcached /s")
        run.read(f"{label}: {way}, door ÷ memcached", "×", mine.over(original), at_least(0.5))


FIGURES = (
    Figure("memcache-door", "memcache-door", "memcache door, durable ÷ memcached, which keeps nothing, in the same run",
           "≥ 0.5", "",
           "Bodies of 200 bytes; the same clients against both, each a process that speaks text over a raw socket: one "
           "by one, and with 100 requests sent before their answers are read. All that is set is got again. After a "
           "warm-up in turns.", measure, 110, only_if_named=True),
)  # fmt: skip
