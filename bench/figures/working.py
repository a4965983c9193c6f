"""P20 and P21: `dropr worker` with handlers that do nothing, or nothing but compute."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dropr_core as dropr
from bench.backlog import Peer, send_many
from bench.figure import Figure, Run, at_least
from bench.nodes import PATIENCE, Pair, Process, Watch, has_role, node_file
from dropr_core.bench.samples import Samples, in_turns

CODE = """
def empty(work):
    pass

async def empty_async(work):
    pass

def answer(work):
    return {"ok": 1}

def busy(work):
    total = 0
    for number in range(40_000):
        total += number
"""
"""What the handlers of the bench do. `busy` takes about a millisecond."""

MODULE = "dropr_bench_handlers"

LEFT = ("ready", "leased", "delayed", "blocked")


def handler(run: Run, name: str) -> dict[str, Any]:
    """The part of a channel's configuration that names one of these functions."""
    path = run.home / "code"
    path.mkdir(exist_ok=True)
    (path / MODULE).with_suffix(".py").write_text(CODE)
    return {"handler": {"use": "python", "target": f"{MODULE}:{name}", "path": str(path)}}


def waiting(node: dropr.Node, channel: str) -> int:
    """Messages of a channel that are not done."""
    counts = node.inbox.counts().get(channel, {})
    return sum(counts.get(state, 0) for state in LEFT)


def await_done(node: dropr.Node, channel: str) -> float:
    """Messages a second, from a moment when some are done to the last."""
    ends = time.monotonic() + PATIENCE
    before = now = waiting(node, channel)
    while (now := waiting(node, channel)) == before:
        time.sleep(0.005)
        if time.monotonic() > ends:
            raise RuntimeError("the worker handles nothing")
    started, count = time.perf_counter(), now
    while waiting(node, channel):
        time.sleep(0.01)
        if time.monotonic() > ends:
            raise RuntimeError("the worker does not come to an end")
    return count / (time.perf_counter() - started)


class Shop:
    """A node whose channel `jobs` has a handler, and a worker that is started anew for each round."""

    def __init__(self, run: Run, storage: str, name: str, worker: dict[str, int]) -> None:
        channels = {"jobs": handler(run, name)}
        self.file = node_file(run, storage, channels=channels, worker=worker)
        self._processes = worker.get("processes", 1)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker, up with all its processes."""
        process = Process("worker", has_role("worker", self.file), self.file.with_suffix(".log"))
        try:
            ends = time.monotonic() + PATIENCE
            while process.log.read_text(errors="replace").count("handles jobs") < self._processes:
                if not process.alive or time.monotonic() > ends:
                    raise RuntimeError(f"the worker is not up: {process.log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.01)
            yield
        finally:
            process.stop()

    def rate(self, node: dropr.Node, peer: Peer, count: int) -> float:
        """Messages a second of ``count`` that wait when the worker is up."""
        with self.worker():
            peer.push(count, "jobs")
            return await_done(node, "jobs")


def measure_rates(run: Run, storage: str, count: int, *cases: tuple[str, dict[str, int]]) -> list[Samples]:
    """For each handler and setting of the worker its rates, measured in turns."""
    nodes = []
    calls: list[Callable[[], float]] = []
    try:
        for name, worker in cases:
            shop = Shop(run, storage, name, worker)
            node = dropr.open(shop.file)
            nodes.append(node)
            peer = Peer(node)
            calls.append(lambda shop=shop, node=node, peer=peer: shop.rate(node, peer, count))  # type: ignore[misc]
        return in_turns(calls, run.rounds)
    finally:
        for node in nodes:
            node.close()


def measure_worker(run: Run) -> None:
    count = run.count(20_000, 2000)
    for storage in run.storages:
        threads, tasks = measure_rates(run, storage, count, ("empty", {"threads": 1}), ("empty_async", {"tasks": 100}))
        run.read(f"{storage}, empty function", "/s", threads, at_least(30_000, 60_000))
        run.read(f"{storage}, empty async function", "/s", tasks)
    for storage in run.storages:
        run.read(f"{storage}, results end to end", "/s", with_results(run, storage), at_least(15_000, 30_000))


def with_results(run: Run, storage: str) -> Samples:
    """From a sender that wants receipts, over a road, through a handler, and back with its result."""
    count = run.count(6_000, 1000)
    channel = {"orders": {"to": "store", "receipt": True}}
    with Pair(
        run.directory("pair"),
        storage=storage,
        shop={"channels": channel},
        store={"channels": {"orders": handler(run, "answer")}},
    ) as pair:
        daemon, server = pair.start_both()
        worker = pair.start("worker", pair.store)
        with dropr.open(pair.shop) as here:

            def once() -> float:
                started = time.perf_counter()
                send_many(here, count)
                ends = time.monotonic() + PATIENCE
                while any(peer.awaiting or peer.waiting for peer in here.outbox.peers().values()):
                    time.sleep(0.01)
                    if time.monotonic() > ends:
                        raise RuntimeError("not every result came home")
                return count / (time.perf_counter() - started)

            once()
            watch = Watch({"daemon": daemon.pid, "server": server.pid, "worker": worker.pid})
            rates = [once() for _ in range(run.rounds)]
            for name, usage in watch.end().items():
                run.cost(f"{storage}, results: {name}", usage, count * run.rounds)
    return Samples(rates)


def measure_scaling(run: Run) -> None:
    storage = run.storages[0]
    one, two = measure_rates(run, storage, run.count(1000, 200), ("busy", {"processes": 1}), ("busy", {"processes": 2}))
    run.read("2 processes ÷ 1, busy function", "×", two.over(one), at_least(1.8, 2))
    for storage in run.storages:
        one, four = threads_in_turns(run, storage, run.count(10_000, 2000), (1, 4))
        run.read(f"{storage}, 4 threads ÷ 1, empty function", "×", four.over(one), at_least(1, 1.2))


def threads_in_turns(run: Run, storage: str, count: int, cases: Sequence[int]) -> list[Samples]:
    """Rates of workers with so many threads each, which all stay up: short turns, for a virtual machine may be half as
    fast a second later.
    """
    with ExitStack() as stack:
        calls: list[Callable[[], float]] = []
        for threads in cases:
            shop = Shop(run, storage, "empty", {"threads": threads})
            node = stack.enter_context(dropr.open(shop.file))
            stack.enter_context(shop.worker())
            peer = Peer(node)

            def once(node: dropr.Node = node, peer: Peer = peer) -> float:
                peer.push(count, "jobs")
                return await_done(node, "jobs")

            calls.append(once)
        return in_turns(calls, run.rounds * 4)


FIGURES = (
    Figure("P20", "worker", "`dropr worker`, empty Python handler / with receipts and results end to end",
           "≥ 30,000 / ≥ 15,000 /s", "60,000 / 30,000",
           "One process with one thread, started for each round; 20,000 messages of 200 bytes wait; from the first "
           "look at which some are done to the last. Results: a sender with `receipt: true` sends 6,000 in batches, a "
           "daemon and a server carry them (curl), the handler returns a small mapping, until the last result is home.",
           measure_worker, 30),
    Figure("P21", "worker-scaling", "worker: 2 processes ÷ 1, busy handler; 4 threads ÷ 1, empty handler",
           "≥ 1.8; ≥ 1", "2; 1.2", "As P20; the busy handler adds 40,000 numbers. Threads: both workers stay up, and "
           "get 10,000 messages each in turns, twenty times.", measure_scaling, 37),
)  # fmt: skip
