"""P23: tasks that do nothing, beside those that are made for tasks; how each is run stands in `bench/peers/`."""

import time

import dropr_core as dropr
from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.others import taken
from bench.figures.working import handler, waiting
from bench.nodes import BODY, Process, has_role, node_file
from bench.peers import figure as peers
from dropr_core.bench.samples import Samples


def own_tasks(run: Run) -> float:
    """Tasks a second that are put one by one and then handled by `dropr worker` with one process and one thread.

    As with the others: the time until all are put, and that from the first that is handled to the last.
    """
    count = run.count(10_000, 500)
    file = node_file(run, run.storages[0], channels={"tasks": handler(run, "empty")})
    with dropr.open(file) as node:
        started = time.perf_counter()
        for _ in range(count):
            node.put(BODY, channel="tasks")
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


def measure_task_queues(run: Run) -> None:
    """An empty task: enqueued one by one, then handled by one worker with one thread."""
    mine = Samples([own_tasks(run) for _ in range(max(3, run.rounds - 2))])
    rates = {True: 0.0, False: 0.0}
    for name in ("celery_redis", "dramatiq_redis", "rq_redis", "huey_sqlite"):
        try:
            for one in taken(run, name, run.count(10_000, 1000), 3):
                if one.what == "task":
                    kind = "durable" if one.durable else "default"
                    run.read(f"{peers.load(name).NAME}, {kind}", "/s", one.value)
                    rates[one.durable] = max(rates[one.durable], one.value)
        except Skipped as why:
            run.note(f"{peers.load(name).NAME}: skipped, {why}")
    run.read(f"dropr, {run.storages[0]}", "/s", mine)
    if not any(rates.values()):
        raise Skipped("none of Celery, Dramatiq, RQ (with Redis) and huey is installed")
    if rates[True]:
        run.read("dropr ÷ the best durable", "×", mine.median / rates[True], at_least(3, 10))
    if rates[False]:
        run.read("dropr ÷ the best as shipped", "×", mine.median / rates[False])


FIGURES = (
    Figure("P23", "task-queues", "`dropr worker` ÷ Celery, Dramatiq, RQ (Redis), huey: an empty task",
           "≥ 3 × the best", "10",
           "Enqueue one by one, then one worker with one thread; its start does not count. Durable where it can be.",
           measure_task_queues, 70),
)  # fmt: skip
