"""P9: how long one message takes through a system that has nothing else to do."""

import json
import threading
import time

import dropr_core as dropr
from bench.figure import Figure, Run, at_most
from bench.nodes import Pair
from dropr_core.bench.samples import Samples

BARS = {"curl": (2.5, 10.0), "zmq": (2.0, 8.0)}


def times_of(here: dropr.Node, there: dropr.Node, count: int) -> list[float]:
    """Milliseconds from before `send` to the consumer's hands, one message after the other, with a pause between."""
    times: list[float] = []
    arrived, ready = threading.Event(), threading.Event()

    def consume() -> None:
        ready.set()
        for received in there.receive("orders", limit=count, timeout=600):
            times.append((time.perf_counter() - json.loads(received.body)["t"]) * 1000)
            arrived.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    ready.wait()
    for _ in range(count):
        arrived.clear()
        here.send(json.dumps({"t": time.perf_counter()}).encode(), channel="orders")
        if not arrived.wait(30):
            raise RuntimeError("a message did not arrive within 30 s")
        time.sleep(0.005)
    thread.join(30)
    return times


def measure(run: Run) -> None:
    storage, count = run.storages[0], run.count(200, 20)
    for transport in run.transports:
        with Pair(run.directory("pair"), storage=storage, transport=transport) as pair:
            pair.start_both()
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                times_of(here, there, count)
                rounds = [Samples(times_of(here, there, count)) for _ in range(run.rounds)]
        median, late = BARS.get(transport, BARS["curl"])
        run.read(f"{storage}, {transport}, p50", "ms", [one.median for one in rounds], at_most(median, 1.0))
        run.read(f"{storage}, {transport}, p99", "ms", [one.percentile(0.99) for one in rounds], at_most(late, 2.0))
        run.distribution(f"{storage}, {transport}", [value for one in rounds for value in one.values])


FIGURES = (
    Figure("P9", "latency", "one message through an idle system, from `send` to the consumer's hands, p50 / p99",
           "≤ 2.5 / 10 ms curl; ≤ 2 / 8 ms zmq", "1 / 2 ms",
           "Two nodes; one message, wait until it is in the consumer's hands, 5 ms of rest, the next. Both nodes are "
           "opened by one process, so that one clock measures.", measure, 25),
)  # fmt: skip
