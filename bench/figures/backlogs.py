"""P10: whether what waits makes anything slower."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dropr_core as dropr
from bench.backlog import Peer, send_many
from bench.figure import Figure, Run, Series, at_least, at_most
from bench.nodes import BODY, node_file
from dropr_core.bench.samples import Samples
from dropr_core.bench.usage import usage_of
from dropr_core.model.names import Lane

LANE = Lane("store", "orders", 5)
FEW, MANY, MOST = 10_000, 1_000_000, 10_000_000
WORKS = ("send", "ship", "receive")


ROUND = 10_000
"""Messages of each kind of work in a round; as many are taken away as were brought, so that as much waits as before."""


class Works:
    """The three kinds of work at a node beside what waits there."""

    def __init__(self, node: dropr.Node) -> None:
        self._node, self._peer = node, Peer(node)

    def send(self) -> None:
        """In batches of 100."""
        for _ in range(ROUND // 100):
            with self._node.batch() as batch:
                for _ in range(100):
                    batch.send(BODY, channel="orders")

    def ship(self) -> None:
        """Take and settle 1000 at a time."""
        outbox = self._node.outbox
        for _ in range(ROUND // 1000):
            taken = outbox.take(LANE, 1000, 1 << 22)
            assert taken is not None, "the backlog is used up"
            outbox.settle(LANE, taken.upto)

    def receive(self) -> None:
        """In batches of 1000, and acknowledge."""
        got = sum(len(batch) for batch in self._node.receive_batches("orders", size=1000, limit=ROUND, wait=0))
        assert got == ROUND, "the backlog is used up"

    def rates(self) -> dict[str, float]:
        """One round: messages a second of each."""
        found = {}
        self._peer.push(ROUND)
        for work in (self.send, self.ship, self.receive):
            started = time.perf_counter()
            work()
            found[work.__name__] = ROUND / (time.perf_counter() - started)
        return found


def use(file: Path) -> None:
    """Work a round for each line on standard input; say its rates and the memory of this process."""
    started = time.perf_counter()
    with dropr.open(file) as node:
        print(json.dumps({"opened": time.perf_counter() - started}), flush=True)
        works = Works(node)
        for _ in sys.stdin:
            print(json.dumps(works.rates() | {"peak": usage_of(os.getpid()).peak}), flush=True)


def fill(file: Path, count: int) -> None:
    """So many in each half."""
    with dropr.open(file) as node:
        send_many(node, count)
        Peer(node).push(count)


class Apart:
    """`fill` or `use` in a process of its own, whose memory is that of nothing else."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "bench.figures.backlogs", *map(str, words)]
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)

    def answer(self) -> dict[str, float]:
        """The next thing that it says."""
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def ask(self) -> dict[str, float]:
        """Have it work for a round."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"a process of the backlog ended with {self._process.returncode}")


def measure(run: Run) -> None:
    counts = [run.count(one, 8000) for one in (FEW, MANY, *([MOST] if run.big else []))]
    for storage in run.storages:
        files = {count: node_file(run, storage) for count in counts}
        for count, file in files.items():
            Apart("fill", file, count).close()
        os.sync()  # what was filled is written by the disk now, and not while the first of them works
        users = {count: Apart("use", file) for count, file in files.items()}
        opened = {count: user.answer()["opened"] for count, user in users.items()}
        rounds = [{count: user.ask() for count, user in users.items()} for _ in range(run.rounds * 2 + 1)][1:]
        for user in users.values():
            user.close()

        def rates(count: int, name: str) -> Samples:
            return Samples([one[count][name] for one in rounds])  # noqa: B023 -- called at once

        few, *others = counts
        for count in others:
            for name in WORKS:
                here, there = rates(count, name), rates(few, name)
                label = f"{storage}, {name}, {count:,} ÷ {few:,}"
                run.read(label, "×", here.over(there), at_least(0.9, 1.0), raw=there, raw_label=f"/s with {few:,}")
            run.read(f"{storage}, peak memory with {count:,}", "MB", rounds[-1][count]["peak"] / 1e6, at_most(150))
            run.read(f"{storage}, opening with {count:,}", "s", opened[count])
        for name in WORKS:
            points = [(float(count), rates(count, name).median) for count in counts]
            title = "throughput against what waits already"
            run.draw(Series("backlog", title, "messages that wait", "messages a second", f"{storage}, {name}", points))


FIGURES = (
    Figure("P10", "backlog", "send, ship and receive with 1,000,000 waiting in each half ÷ with 10,000 (`--big`: "
           "10,000,000)", "≥ 0.9; ≤ 150 MB", "1.0",
           "Send: batches of 100; ship: take and settle 1000; receive: 1000 and acknowledge; 10,000 of each in a "
           "round, so that as much waits as before. In turns; filling and using are processes of their own.",
           measure, 30),
)  # fmt: skip


if __name__ == "__main__":
    what, where, *more = sys.argv[1:]
    if what == "fill":
        fill(Path(where), int(more[0]))
    else:
        use(Path(where))
