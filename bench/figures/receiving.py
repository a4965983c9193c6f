"""P5 and P19: consuming what waits on this node, in batches and one at a time; huey in the same run."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import dropr_core as dropr
from bench.backlog import Peer
from bench.figure import Figure, Run, Series, at_least
from bench.huey_side import take_rate
from bench.nodes import node_file
from dropr_core.bench.samples import Samples, in_turns

Consume = Callable[[dropr.Node, int], float]
"""Takes so many messages that wait; messages a second."""


def in_batches(node: dropr.Node, count: int) -> float:
    """Batches of 1000, each acknowledged in one commit."""
    started, got = time.perf_counter(), 0
    for batch in node.receive_batches("orders", size=1000, limit=count, wait=30):
        got += len(batch)
    return got / (time.perf_counter() - started)


def one_by_one(node: dropr.Node, count: int) -> float:
    """The iterator, with an empty body of the loop."""
    started, got = time.perf_counter(), 0
    for _ in node.receive("orders", limit=count, wait=30):
        got += 1
    return got / (time.perf_counter() - started)


def measure(run: Run, consume: Consume, count: int) -> dict[str, Samples]:
    """Storage → messages a second, filled anew before each round."""
    found = {}
    for storage in run.storages:
        with dropr.open(node_file(run, storage)) as node:
            peer = Peer(node)

            def once() -> float:
                peer.push(count)  # noqa: B023
                return consume(node, count)

            (found[storage],) = in_turns([once], run.rounds)
    return found


def measure_batches(run: Run) -> None:
    bars = {"sqlite": at_least(90_000, 160_000), "fs": at_least(90_000, 160_000)}
    found = measure(run, in_batches, run.count(50_000, 2000))
    huey = take_rate(run, run.count(3000, 200))
    for storage, rates in found.items():
        run.read(storage, "/s", rates, bars[storage])
        if huey:
            run.read(f"{storage}, ÷ huey", "×", rates.over(Samples(huey)), at_least(15))
    if huey:
        run.read("huey", "/s", huey)


def measure_iterator(run: Run) -> None:
    bars = {"sqlite": at_least(50_000, 100_000), "fs": at_least(70_000, 100_000)}
    found = measure(run, one_by_one, run.count(40_000, 4000))
    huey = take_rate(run, run.count(3000, 200))
    for storage, rates in found.items():
        run.read(storage, "/s", rates, bars[storage])
        if huey:
            run.read(f"{storage}, ÷ huey", "×", rates.over(Samples(huey)), at_least(10))
    if huey:
        run.read("huey", "/s", huey)


def measure_consumers(run: Run) -> None:
    """How several consumers share a channel: threads of one process, each with a consumer of its own."""
    import threading

    count = run.count(16_000, 2000)
    for storage in run.storages:
        points: list[tuple[float, float]] = []
        for consumers in (1, 2, 4, 8):
            with ExitStack() as stack:
                node = stack.enter_context(dropr.open(node_file(run, storage)))
                peer = Peer(node)

                def once() -> float:
                    peer.push(count)  # noqa: B023
                    share = count // consumers  # noqa: B023
                    threads = [threading.Thread(target=in_batches, args=(node, share)) for _ in range(consumers)]  # noqa: B023
                    started = time.perf_counter()
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    return share * consumers / (time.perf_counter() - started)  # noqa: B023

                (rates,) = in_turns([once], run.rounds)
            points.append((consumers, rates.median))
        run.read(f"{storage}, 8 consumers ÷ 1", "×", points[-1][1] / points[0][1])
        title = "receive + acknowledge in batches of 1000: throughput against consumers"
        run.draw(Series("receive-consumers", title, "consumers (threads)", "messages a second", storage, points))


FIGURES = (
    Figure("P5", "receive", "receive + acknowledge in batches, one consumer", "≥ 90,000 /s; ≥ 15 × huey", "160,000 /s",
           "50,000 messages of 200 bytes wait; `receive_batches(size=1000)` takes all. huey: SQLite, fsync, an empty "
           "task, 3000 of them.", measure_batches, 12),
    Figure("P19", "iterator", "`for message in node.receive(…)`, one at a time, empty body of the loop",
           "≥ 50,000 /s sqlite, ≥ 70,000 fs; ≥ 10 × huey", "100,000 /s",
           "40,000 messages of 200 bytes wait; the loop takes them one by one. huey as in P5.", measure_iterator, 12),
    Figure("consumers", "consumers", "receive + acknowledge: several consumers of one channel", "", "",
           "As P5 with 1, 2, 4 and 8 threads; for the pictures.", measure_consumers, 12),
)  # fmt: skip
