"""P2 and P3: several threads, or processes, that send into one store, against those that do the same raw."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import dropr_core as dropr
from bench.figure import Figure, Run, at_least
from bench.figures.sending import PIECE, raw_limit, raw_name, send_one
from bench.nodes import BODY, kept_open, node_file
from bench.raw_together import KINDS, group_commit, shared
from dropr_core.bench.samples import in_turns, rate_of


def together(send: Callable[[], object], threads: int, seconds: float) -> float:
    """Messages a second that so many threads of one process send together."""
    counts: list[int] = []
    ends = time.perf_counter() + seconds

    def work() -> None:
        count = 0
        while time.perf_counter() < ends:
            send()
            count += 1
        counts.append(count)

    started = time.perf_counter()
    all_of_them = [threading.Thread(target=work) for _ in range(threads)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def measure_threads(run: Run) -> None:
    piece = run.seconds(PIECE)
    for storage in run.storages:
        place = run.directory("raw")
        with (
            dropr.open(node_file(run, storage)) as node,
            raw_limit(run, storage) as raw_step,
            group_commit(place / "together", storage) as group,
        ):
            send, put = send_one(node), lambda: group.put(BODY)
            one, eight, raw_one, raw_eight = in_turns(
                [
                    lambda: rate_of(send, piece),  # noqa: B023
                    lambda: together(send, 8, piece),  # noqa: B023
                    lambda: rate_of(raw_step, piece),
                    lambda: together(put, 8, piece),  # noqa: B023
                ],
                run.rounds * 2,
            )
        run.read(f"{storage}, ÷ one thread", "×", eight.over(one), at_least(2.5 if storage == "sqlite" else 3.0))
        run.read(f"{storage}, ÷ raw group commit", "×", eight.over(raw_eight), at_least(0.7, 1.0))
        run.read(f"{storage}, raw group commit of 8 ÷ one", "×", raw_eight.over(raw_one))
        run.read(f"{storage}, 8 threads", "/s", eight, raw=raw_eight, raw_label="group commit of 8 threads /s")
        run.read(f"{storage}, one thread", "/s", one, raw=raw_one, raw_label=raw_name(storage))


def _send(file: Path, orders: "Connection[float, int]") -> None:
    """A process that sends."""
    with dropr.open(file) as node:
        _repeat(send_one(node), orders)


def _put_raw(file: Path, kind: str, orders: "Connection[float, int]") -> None:
    """A process that does what a sender cannot do without."""
    with shared(file, kind, BODY) as step:
        _repeat(step, orders)


def _repeat(step: Callable[[], int], orders: "Connection[float, int]") -> None:
    """Do it for as long as one is told, again and again, until one is told no more."""
    orders.send(0)
    while seconds := orders.recv():
        ends, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < ends:
            count += step()
        orders.send(count)


class Crew:
    """Eight processes of which some work together when they are told."""

    def __init__(self, work: Callable[..., None], *words: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ends, self._children = [], []
        for _ in range(8):
            mine, its = spawn.Pipe()
            child = spawn.Process(target=work, args=(*words, its), daemon=True)
            child.start()
            self._ends.append(mine)
            self._children.append(child)
        for mine in self._ends:
            mine.recv()

    def rate(self, processes: int, seconds: float) -> float:
        """How much so many do together, a second."""
        started = time.perf_counter()
        for mine in self._ends[:processes]:
            mine.send(seconds)
        done: int = sum(mine.recv() for mine in self._ends[:processes])
        return done / (time.perf_counter() - started)

    def close(self) -> None:
        """End them."""
        for child in self._children:
            child.kill()
            child.join(30)


def measure_processes(run: Run) -> None:
    seconds = run.seconds(0.5)
    for storage in run.storages:
        file, place = node_file(run, storage), run.directory("raw")
        with dropr.open(file):
            pass  # the store is there before eight processes want to make it
        ours = Crew(_send, file)
        kinds = KINDS[:2] if storage == "fs" else KINDS[2:]
        crews = [ours, *(Crew(_put_raw, place / f"file{number}", kind) for number, kind in enumerate(kinds))]
        with kept_open(*crews):
            one, two, eight, *raw = in_turns(
                [
                    lambda: ours.rate(1, seconds),  # noqa: B023 -- called at once
                    lambda: ours.rate(2, seconds),  # noqa: B023
                    lambda: ours.rate(8, seconds),  # noqa: B023
                    *(lambda crew=crew, n=n: crew.rate(n, seconds) for crew in crews[1:] for n in (1, 8)),
                ],
                run.rounds,
            )
        run.read(f"{storage}, 8 ÷ one process", "×", eight.over(one), at_least(1.0, 2.0))
        run.read(f"{storage}, 2 ÷ one process", "×", two.over(one))
        run.read(f"{storage}, one process", "/s", one)
        for kind, raw_one, raw_eight in zip(kinds, raw[::2], raw[1::2], strict=True):
            run.read(f"{storage}, raw 8 ÷ one ({kind})", "×", raw_eight.over(raw_one))
            run.read(f"{storage}, 8 processes", "/s", eight, raw=raw_eight, raw_label=f"8 raw, {kind} /s")


FIGURES = (
    Figure("P2", "send-threads", "8 threads of one process ÷ one thread", "≥ 2.5 sqlite, ≥ 3 fs", "raw group commit",
           "As P1, in turns: one thread, eight; the same two raw: a commit or append for each, and a group commit, "
           "where one of eight threads flushes for all that wait (`raw_together.py`).", measure_threads, 26),
    Figure("P3", "send-processes", "8 processes sending into one store, together ÷ one process", "≥ 1", "≥ 2",
           "Eight processes with the node open; in turns of half a second one of them sends, two, or all; and one or "
           "all of eight that put as much into one file without dropr: a commit of one SQLite database, an append and "
           "fdatasync, or these two under a lock.", measure_processes, 44),
)  # fmt: skip
