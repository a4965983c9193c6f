"""P2 and P3: several threads, or processes, that send into one store, durable."""

import multiprocessing
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import dropr_core as dropr
from bench.figure import Figure, Run, at_least
from bench.figures.sending import PIECE, send_one
from bench.nodes import BODY, node_file
from dropr_core.bench.samples import in_turns, rate_of


def together(node: dropr.Node, threads: int, seconds: float) -> float:
    """Messages a second that so many threads of one process send together."""
    counts: list[int] = []
    ends = time.perf_counter() + seconds

    def send() -> None:
        count = 0
        while time.perf_counter() < ends:
            node.send(BODY, channel="orders")
            count += 1
        counts.append(count)

    started = time.perf_counter()
    all_of_them = [threading.Thread(target=send) for _ in range(threads)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def measure_threads(run: Run) -> None:
    piece = run.seconds(PIECE)
    for storage in run.storages:
        with dropr.open(node_file(run, storage)) as node:
            one, eight = in_turns(
                [lambda: rate_of(send_one(node), piece), lambda: together(node, 8, piece)], run.rounds * 2
            )
        run.read(f"{storage}, ÷ one thread", "×", eight.over(one), at_least(2.5 if storage == "sqlite" else 3.0))
        run.read(f"{storage}, 8 threads", "/s", eight, raw=one, raw_label="one thread /s")


def _child(file: Path, orders: "Connection[float, int]") -> None:
    """A process that sends for as long as it is told, again and again, until it is told no more."""
    with dropr.open(file) as node:
        orders.send(0)
        while seconds := orders.recv():
            step, ends, count = send_one(node), time.perf_counter() + seconds, 0
            while time.perf_counter() < ends:
                count += step()
            orders.send(count)


def measure_processes(run: Run) -> None:
    spawn, seconds = multiprocessing.get_context("spawn"), run.seconds(0.5)
    for storage in run.storages:
        file = node_file(run, storage)
        with dropr.open(file):
            pass  # the store is there before eight processes want to make it
        ends, children = [], []
        with ExitStack() as stack:
            for _ in range(8):
                mine, its = spawn.Pipe()
                child = spawn.Process(target=_child, args=(file, its), daemon=True)
                child.start()
                stack.callback(child.kill)
                ends.append(mine)
                children.append(child)
            for mine in ends:
                mine.recv()

            def rate(processes: int) -> float:
                started = time.perf_counter()
                for mine in ends[:processes]:  # noqa: B023
                    mine.send(seconds)
                done: int = sum(mine.recv() for mine in ends[:processes])  # noqa: B023
                return done / (time.perf_counter() - started)

            one, two, eight = in_turns([lambda: rate(1), lambda: rate(2), lambda: rate(8)], run.rounds)
            for mine in ends:
                mine.send(0.0)
            for child in children:
                child.join(30)
        run.read(f"{storage}, 8 ÷ one process", "×", eight.over(one), at_least(1.0, 2.0))
        run.read(f"{storage}, 2 ÷ one process", "×", two.over(one))
        run.read(f"{storage}, 8 processes", "/s", eight, raw=one, raw_label="one process /s")


FIGURES = (
    Figure("P2", "send-threads", "8 threads of one process ÷ one thread", "≥ 2.5 sqlite, ≥ 3 fs", "raw group commit",
           "As P1, in turns: one thread, eight.", measure_threads, 13),
    Figure("P3", "send-processes", "8 processes sending into one store, together ÷ one process", "≥ 1", "≥ 2",
           "Eight processes with the node open; in turns of half a second one of them sends, two, or all.",
           measure_processes, 16),
)  # fmt: skip
