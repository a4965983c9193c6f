"""P23: tasks that do nothing, beside those that are made for tasks; how each is run stands in `bench/peers/`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dropr_core as dropr
from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.others import taken
from bench.figures.sending import send_batch
from bench.figures.working import handler, waiting
from bench.nodes import BODY, PATIENCE, Pair, Process, has_role, node_file
from bench.peers import figure as peers
from dropr_core.bench.samples import in_turns

PEERS = ("celery_redis", "dramatiq_redis", "rq_redis", "huey_sqlite")
MODES = {"task": "one by one", "task in the best mode": "best mode"}
"""What the peers' figures are called, and what the table calls them."""
Enqueue = Callable[[dropr.Node, int], None]


def one_by_one(node: dropr.Node, count: int) -> None:
    """Put so many, each durable before the next."""
    for _ in range(count):
        node.put(BODY, channel="tasks")


def by_threads(node: dropr.Node, count: int) -> None:
    """Put so many from eight threads, which share syncs."""
    peers.by_threads(lambda share: one_by_one(node, share), count)


def in_batches(node: dropr.Node, count: int) -> None:
    """Put a thousand with each commit."""
    for first in range(0, count, 1000):
        node.put_all([BODY] * min(1000, count - first), channel="tasks")


def own_tasks(run: Run, storage: str, enqueue: Enqueue) -> float:
    """Tasks a second that are put and then handled by `dropr worker` with one process and one thread.

    As with the others: the time until all are put, and that from the first that is handled to the last.
    """
    count = run.count(6_000, 500)
    file = node_file(run, storage, channels={"tasks": handler(run, "empty")})
    with dropr.open(file) as node:
        started = time.perf_counter()
        enqueue(node, count)
        spent = time.perf_counter() - started
        worker = Process("worker", has_role("worker", file), file.parent / "worker.log")
        try:
            spent += _until_handled(node, worker, count)
        finally:
            worker.stop()
    return count / spent


def _until_handled(node: dropr.Node, worker: Process, count: int) -> float:
    """Seconds for all of them, by those from the first that was seen handled to the last."""
    ends, first, begun = time.monotonic() + 120, 0, 0.0
    while True:
        done = count - waiting(node, "tasks")
        now = time.perf_counter()
        if done and not begun:
            first, begun = done, now
        if done == count:
            return (now - begun) * count / max(1, count - first)
        if not worker.alive or time.monotonic() > ends:
            words = worker.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the worker handled {done} of {count}; it says: {words}")
        time.sleep(0.002)


@contextmanager
def carried_tasks(run: Run, storage: str) -> Iterator[Callable[[], float]]:
    """Tasks a second that another node sends in batches of 1000, from the first `send` until the last is handled there.

    The road is part of it, and the worker is up meanwhile: everything happens at the same time.
    """
    count = run.count(30_000, 1000) // 1000 * 1000
    channels = {"orders": handler(run, "empty")}
    with Pair(run.directory("pair"), storage=storage, store={"channels": channels}) as pair:
        pair.start_both()
        pair.start("worker", pair.store)
        with dropr.open(pair.shop) as here, dropr.open(pair.store) as there:

            def once() -> float:
                started, send = time.perf_counter(), send_batch(here, 1000)
                for _ in range(count // 1000):
                    send()
                ends = time.monotonic() + PATIENCE
                while here.outbox.peers()["store"].waiting or waiting(there, "orders"):
                    time.sleep(0.005)
                    if time.monotonic() > ends:
                        raise RuntimeError("not every task was handled")
                return count / (time.perf_counter() - started)

            yield once


def measure_ours(run: Run) -> dict[str, float]:
    """The best rate of both storages, by mode."""
    best = dict.fromkeys(MODES.values(), 0.0)
    for storage in run.storages:
        with carried_tasks(run, storage) as carried:
            single, threads, batches, far = in_turns(
                [
                    lambda: own_tasks(run, storage, one_by_one),  # noqa: B023 -- called at once
                    lambda: own_tasks(run, storage, by_threads),  # noqa: B023
                    lambda: own_tasks(run, storage, in_batches),  # noqa: B023
                    carried,
                ],
                max(3, run.rounds - 2),
            )
        run.read(f"dropr, {storage}, one by one", "/s", single)
        run.read(f"dropr, {storage}, put by 8 threads", "/s", threads)
        run.read(f"dropr, {storage}, put in batches of 1000", "/s", batches)
        run.read(f"dropr, {storage}, batches of 1000 from another node", "/s", far)
        best["one by one"] = max(best["one by one"], single.median)
        best["best mode"] = max(best["best mode"], threads.median, batches.median, far.median)
    return best


def measure(run: Run) -> None:
    """An empty task: enqueued one by one, or in the best way of each; handled by one worker with one thread."""
    ours = measure_ours(run)
    theirs: dict[tuple[str, bool], float] = {}
    for name in PEERS:
        try:
            for one in taken(run, name, run.count(10_000, 1000), 2):
                if mode := MODES.get(one.what):
                    kind = "durable" if one.durable else "default"
                    run.read(f"{peers.load(name).NAME}, {mode}, {kind}", "/s", one.value)
                    theirs[mode, one.durable] = max(theirs.get((mode, one.durable), 0.0), one.value)
        except Skipped as why:
            run.note(f"{peers.load(name).NAME}: skipped, {why}")
    if not theirs:
        raise Skipped("none of Celery, Dramatiq, RQ (with Redis) and huey is installed")
    # Whoever is better one by one than by threads is compared by that.
    for durable in (True, False):
        theirs["best mode", durable] = max(theirs["best mode", durable], theirs["one by one", durable])
    for (mode, durable), rate in sorted(theirs.items()):
        goal = at_least(3, 10) if durable and mode == "best mode" else None
        kind = "durable" if durable else "as shipped"
        run.read(f"dropr ÷ the best {kind}, {mode}", "×", ours[mode] / rate, goal)


FIGURES = (
    Figure("P23", "task-queues", "`dropr worker` ÷ Celery, Dramatiq, RQ (Redis), huey: an empty task",
           "≥ 3 × the best", "10",
           "Enqueue, then one worker with one thread; its start does not count. One by one, where a sync for each is "
           "the bound of all that are durable, and in the best mode of each: eight threads (dropr, Celery, Dramatiq, "
           "huey), `enqueue_many` (RQ), `put_all` of 1000 (dropr), and batches that another node sends, from the first "
           "`send` until the last is handled (dropr). Durable where it can be; the bar is that of the best modes.",
           measure, 85),
)  # fmt: skip
