"""P13 and P14: a large body between two nodes, and what urgent messages wait meanwhile."""

import json
import os
import subprocess
import time
from pathlib import Path

import dropr_core as dropr
from bench.figure import Figure, Run, Skipped, at_least, at_most
from bench.nodes import Pair, Watch
from dropr_core.bench.samples import Samples

BLOCK = 1 << 20


def write(file: Path, size: int) -> None:
    """A file of ``size`` bytes, no two blocks of it the same."""
    block = os.urandom(BLOCK)
    with file.open("wb") as out:
        for number in range(size // BLOCK):
            out.write(number.to_bytes(8, "big") + block[8:])
        out.flush()
        os.fsync(out.fileno())


def copied(movie: Path, copy: Path) -> float:
    """Seconds that ``cp`` and fsync take."""
    started = time.perf_counter()
    subprocess.run(["cp", movie, copy], check=True)
    with copy.open("rb+") as file:
        os.fsync(file.fileno())
    spent = time.perf_counter() - started
    copy.unlink()
    return spent


def room_for(run: Run, size: int) -> int:
    """The size, or less where the disk has too little room for its copies."""
    free = os.statvfs(run.home).f_bavail * os.statvfs(run.home).f_frsize
    if free < 5 * (256 << 20):
        raise Skipped(f"{run.home} has only {free >> 20} MiB free")
    while size * 5 > free:
        size //= 2
    return size


def swept(pair: Pair) -> None:
    """Return once both nodes have swept the bodies away."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        bodies = [file for name in ("shop", "store") for file in (pair.directory / name / "bodies").rglob("*")]
        if not any(file.is_file() and file.stat().st_size >= BLOCK for file in bodies):
            return
        time.sleep(0.2)


def measure_body(run: Run) -> None:
    size = room_for(run, run.count(1 << 30, 16 << 20))
    movie = run.home / "movie"
    write(movie, size)
    for transport in run.transports[:1]:  # each more is a minute more
        with Pair(run.directory("pair"), storage=run.storages[0], transport=transport) as pair:
            daemon, server = pair.start_both()
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                watch = Watch({"daemon": daemon.pid, "server": server.pid})
                bases, ways, sends = [], [], []
                for _ in range(run.rounds + 1):
                    bases.append(copied(movie, run.home / "copy"))
                    started = time.perf_counter()
                    here.send(movie, to="store", channel="films")
                    stored = time.perf_counter()
                    for _ in there.receive("films", limit=1, timeout=300):
                        ways.append(time.perf_counter() - stored)
                    sends.append(stored - started)
                    swept(pair)
                watch.end()
        base, way = Samples(bases[1:]), Samples(ways[1:])
        run.read(f"{transport}, cp + fsync ÷ it", "×", base.over(way), at_least(0.4, 0.8))
        run.read(f"{transport}, {size >> 20} MiB", "s", way, raw=base, raw_label="s cp + fsync")
        run.read(f"{transport}, send of it alone", "s", Samples(sends[1:]))
        for name, peak in watch.peak.items():
            run.read(f"{transport}, {name} above idle", "MiB", (peak - watch.idle[name]) / 2**20, at_most(64))


def measure_urgent(run: Run) -> None:
    size = room_for(run, run.count((4 if run.big else 1) << 30, 64 << 20))
    if size < 4 << 30:
        run.note(f"a body of {size >> 20} MiB instead of 4 GiB, for the sake of time (`--big`) or room")
    movie = run.home / "movie"
    write(movie, size)
    for transport in run.transports[:1]:  # each more is a minute more
        with Pair(run.directory("pair"), storage=run.storages[0], transport=transport) as pair:
            pair.start_both()
            rounds = []
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                for _ in range(run.rounds):
                    rounds.append(urgent(here, there, movie))
                    for _ in there.receive("films", limit=1, timeout=300):
                        pass
                    swept(pair)
        everything = [value for one in rounds for value in one]
        run.read(f"{transport}, p50 of {len(everything)}", "ms", [Samples(one).median for one in rounds])
        run.read(f"{transport}, p99", "ms", [Samples(one).percentile(0.99) for one in rounds], at_most(100, 10))
        run.distribution(transport, everything)


def urgent(here: dropr.Node, there: dropr.Node, movie: Path) -> list[float]:
    """Milliseconds that small messages take while a large body is on its way."""
    here.send(movie, to="store", channel="films")
    waits: list[float] = []
    while here.outbox.peers()["store"].waiting or len(waits) < 10:
        here.send(json.dumps({"t": time.perf_counter()}).encode(), channel="orders", priority=0)
        for received in there.receive("orders", limit=1, timeout=60):
            waits.append((time.perf_counter() - json.loads(received.body)["t"]) * 1000)
        time.sleep(0.01)
    return waits


FIGURES = (
    Figure("P13", "body", "a body of 1 GiB end to end ÷ `cp` + fsync on the same disk; memory above idle",
           "≥ 0.4; ≤ 64 MiB", "0.8", "In turns: `cp` and fsync of the file; `send(path)` on one node, then the time "
           "until the consumer of the other has it.", measure_body, 30),
    Figure("P14", "urgent", "an urgent message to a healthy peer while a large body is in transit", "≤ 100 ms p99",
           "10 ms", "Messages of priority 0, one after the other, until the body is over.", measure_urgent, 20),
)  # fmt: skip
