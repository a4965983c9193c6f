"""P22: sending one by one on a channel that does not wait for the disk."""

import time
from collections.abc import Callable

import dropr_core as dropr
from bench.figure import Figure, Run, at_least
from bench.nodes import BODY, node_file
from dropr_core.bench.samples import Samples, in_turns

CHANNELS = {"orders": {"to": "store", "durability": "interval"}, "slow": {"to": "store"}}


def send_all(node: dropr.Node, count: int) -> float:
    """Messages a second, until the outbox has the last one: what only stands in the staging log does not count."""
    started = time.perf_counter()
    for _ in range(count):
        node.send(BODY, channel="orders")
    node.runtime.staging.drain()
    return count / (time.perf_counter() - started)


def one_by_one(node: dropr.Node, count: int) -> Callable[[], float]:
    """The same with `durability: commit`."""

    def take() -> float:
        started = time.perf_counter()
        for _ in range(count):
            node.send(BODY, channel="slow")
        return count / (time.perf_counter() - started)

    return take


def measure(run: Run) -> None:
    for storage in run.storages:
        count = run.count(20_000, 500)
        with dropr.open(node_file(run, storage, channels=CHANNELS)) as node:
            slow: Samples
            ours, slow = in_turns([lambda: send_all(node, count), one_by_one(node, count // 10)], run.rounds)  # noqa: B023
        run.read(storage, "/s", ours, at_least(50_000, 100_000), raw=slow, raw_label="with `commit` /s")


FIGURES = (
    Figure("P22", "interval", "`send` one by one with `durability: interval`", "≥ 50,000 /s", "100,000",
           "20,000 messages of 200 bytes, one after the other, until the last is in the outbox and on stable storage.",
           measure, 10),
)  # fmt: skip
