"""P10: whether what waits makes anything slower."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dropr_core as dropr
from bench.backlog import Peer, send_many
from bench.figure import Figure, Run, Series, at_least, at_most
from bench.nodes import BODY, node_file
from dropr_core.bench.samples import Samples, rate_of
from dropr_core.bench.usage import usage_of
from dropr_core.model.names import Lane

LANE = Lane("store", "orders", 5)
FEW, MANY, MOST = 10_000, 1_000_000, 10_000_000
PIECE = 0.4


def use(file: Path, seconds: float, rounds: int) -> dict[str, object]:
    """Messages a second of each kind of work beside what waits, and the memory of this process, which does it."""
    import os

    started = time.perf_counter()
    with dropr.open(file) as node:
        opened = time.perf_counter() - started

        def send() -> int:
            with node.batch() as batch:
                for _ in range(100):
                    batch.send(BODY, channel="orders")
            return 100

        def ship() -> int:
            taken = node.outbox.take(LANE, 1000, 1 << 22)
            assert taken is not None, "the backlog is used up"
            node.outbox.settle(LANE, taken.upto)
            return 1000

        def receive() -> int:
            return sum(len(batch) for batch in node.receive_batches("orders", size=1000, limit=1000, wait=0))

        works: dict[str, Callable[[], int]] = {"send": send, "ship": ship, "receive": receive}
        rates: dict[str, list[float]] = {name: [] for name in works}
        for round_ in range(rounds + 1):
            for name, work in works.items():
                # Not for a time but so many: the smaller backlog must not be used up.
                rate = rate_of(work, seconds) if name == "send" else rate_of(work, 0.0)
                if round_:
                    rates[name].append(rate)
    return {"opened": opened, "rates": rates, "peak": usage_of(os.getpid()).peak}


def fill(file: Path, count: int) -> None:
    """So many in each half."""
    with dropr.open(file) as node:
        send_many(node, count)
        Peer(node).push(count)


def apart(*words: object) -> dict[str, object]:
    """One of these two in a process of its own, whose memory is that of nothing else."""
    command = [sys.executable, "-m", "bench.figures.backlogs", *map(str, words)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(run: Run) -> None:
    counts = [FEW, MANY, *([MOST] if run.big else [])]
    for storage in run.storages:
        found = {}
        for count in (run.count(one, 8000) for one in counts):
            file = node_file(run, storage)
            apart("fill", file, count)
            found[count] = apart("use", file, run.seconds(PIECE), run.rounds)
        few, *others = found
        for count in others:
            for name in ("send", "ship", "receive"):
                here, there = (Samples(found[one]["rates"][name]) for one in (count, few))  # type: ignore[index]
                label = f"{storage}, {name}, {count:,} ÷ {few:,}"
                run.read(label, "×", here.over(there), at_least(0.9, 1.0), raw=there, raw_label=f"/s with {few:,}")
            peak = float(found[count]["peak"]) / 1e6  # type: ignore[arg-type]
            run.read(f"{storage}, peak memory with {count:,}", "MB", peak, at_most(150))
            run.read(f"{storage}, opening with {count:,}", "s", float(found[count]["opened"]))  # type: ignore[arg-type]
        for name in ("send", "ship", "receive"):
            points = [(float(count), Samples(one["rates"][name]).median) for count, one in found.items()]  # type: ignore[index]
            title = "throughput against what waits already"
            run.draw(Series("backlog", title, "messages that wait", "messages a second", f"{storage}, {name}", points))


FIGURES = (
    Figure("P10", "backlog", "send, ship and receive with 1,000,000 waiting in each half ÷ with 10,000 (`--big`: "
           "10,000,000)", "≥ 0.9; ≤ 150 MB", "1.0",
           "Send: batches of 100; ship: take and settle 1000; receive: 1000 and acknowledge. Filling and using are "
           "processes of their own.", measure, 50),
)  # fmt: skip


if __name__ == "__main__":
    what, where, number, *more = sys.argv[1:]
    if what == "fill":
        fill(Path(where), int(number))
        print("{}")
    else:
        print(json.dumps(use(Path(where), float(number), int(more[0]))))
