"""What a disk does, raw and with a node's storage above it.

Owns the measurements on one node. Must not know configurations, nor where it may write.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from dropr_core.api.node import Node
from dropr_core.bench import raw
from dropr_core.bench.row import Row, Say
from dropr_core.bench.samples import in_turns, rate_of

BODY = os.urandom(200)
CHANNEL = "bench"
THREADS = 8
BATCH = 1000


def measure_disk(node: Node, directory: Path, say: Say, *, rounds: int, seconds: float) -> Iterator[Row]:
    """Rates of a node that nobody else uses, with ``CHANNEL`` routed to a peer, beside those of the bare disk.

    ``directory``: on the same disk, for the raw files. ``seconds``: of one measurement.
    """
    with ExitStack() as stack:
        append = stack.enter_context(raw.appends(directory / "raw.log", BODY))
        commit = stack.enter_context(raw.commits(directory / "raw.db", BODY))
        say("the bare disk, and send one by one")
        appends, commits, ones, eights = in_turns(
            [lambda: rate_of(append, seconds), lambda: rate_of(commit, seconds),
             lambda: rate_of(_send_one(node), seconds), lambda: _together(node, seconds)],
            rounds,
        )  # fmt: skip
    yield Row("disk", "raw: append to a file, fdatasync", "/s", appends)
    yield Row("disk", "raw: commit of SQLite, synced", "/s", commits)
    yield Row("disk", "send, one by one", "/s", ones, commits, "raw commits")
    yield Row("disk", f"send, {THREADS} threads", "/s", eights, ones, "one thread")
    with ExitStack() as stack:
        append = stack.enter_context(raw.appends(directory / "raw-batch.log", BODY, BATCH))
        commit = stack.enter_context(raw.commits(directory / "raw-batch.db", BODY, BATCH))
        say(f"batches of {BATCH}")
        _, commits, batches = in_turns(
            [lambda: rate_of(append, seconds), lambda: rate_of(commit, seconds),
             lambda: rate_of(_send_batch(node), seconds)], rounds,
        )  # fmt: skip
    yield Row("disk", f"send, batches of {BATCH}", "/s", batches, commits, "raw commits of as many")
    yield from _receiving(node, say, rounds)


def _receiving(node: Node, say: Say, rounds: int) -> Iterator[Row]:
    say("receive and acknowledge")
    ones, batches = in_turns([lambda: _receive_ones(node, 500), lambda: _receive_batches(node, 2 * BATCH)], rounds)
    yield Row("disk", "receive + acknowledge, one by one", "/s", ones)
    yield Row("disk", f"receive + acknowledge, batches of {BATCH}", "/s", batches)


def _send_one(node: Node) -> raw.Step:
    def step() -> int:
        node.send(BODY, channel=CHANNEL)
        return 1

    return step


def _send_batch(node: Node) -> raw.Step:
    def step() -> int:
        with node.batch() as batch:
            for _ in range(BATCH):
                batch.send(BODY, channel=CHANNEL)
        return BATCH

    return step


def _together(node: Node, seconds: float) -> float:
    """Messages a second that some threads send together."""
    rates: list[float] = []
    threads = [threading.Thread(target=lambda: rates.append(rate_of(_send_one(node), seconds))) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _put(node: Node, count: int) -> None:
    """Have messages wait in the node's own queue; many threads, so that it does not take long."""
    share = count // THREADS + 1

    def put() -> None:
        for _ in range(share):
            node.put(BODY, channel=CHANNEL)

    threads = [threading.Thread(target=put) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _timed(node: Node, count: int, take: Callable[[], int]) -> float:
    _put(node, count)
    started = time.perf_counter()
    return take() / (time.perf_counter() - started)


def _receive_ones(node: Node, count: int) -> float:
    return _timed(node, count, lambda: sum(1 for _ in node.receive(CHANNEL, limit=count, wait=0)))


def _receive_batches(node: Node, count: int) -> float:
    def take() -> int:
        return sum(len(batch) for batch in node.receive_batches(CHANNEL, size=BATCH, limit=count, wait=0))

    return _timed(node, count, take)
