"""P9: how long one message takes through a system that has nothing else to do, and through those of others."""

import json
import threading
import time
from contextlib import ExitStack

import dropr_core as dropr
from bench.figure import Figure, Run, at_most
from bench.nodes import Pair
from bench.peers import figure as peers
from bench.peers.figure import Latencies
from dropr_core.bench.samples import Samples

BARS = {"curl": ((2.5, 1.0), (10.0, 2.0)), "zmq": ((2.0, 1.0), (8.0, 2.0))}
"""By transport: bar and dream of p50, and of p99, in milliseconds."""
NATS = {"p50": 1.5, "p99": 2.3}
"""What NATS, durable, took where these bars were set, in milliseconds."""


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


def own(run: Run, stack: ExitStack, transport: str) -> Latencies:
    """Two nodes with nothing to do."""
    pair = stack.enter_context(Pair(run.directory("pair"), storage=run.storages[0], transport=transport))
    pair.start_both()
    there, here = (stack.enter_context(dropr.open(file)) for file in (pair.store, pair.shop))
    return lambda count: [value / 1000 for value in times_of(here, there, count)]


def others(run: Run, stack: ExitStack) -> dict[str, Latencies]:
    """The others that are installed, idle too."""
    found: dict[str, Latencies] = {}
    for name in ("nats", "rabbitmq"):
        peer = peers.load(name)
        if why := peer.missing():
            run.note(f"{peer.NAME}: skipped, {why}")
            continue
        run.note(f"{peer.NAME}: {peer.version()}; bench/peers/{name}.py")
        found |= stack.enter_context(peer.idle(run.directory(name)))
    return found


def measure(run: Run) -> None:
    storage, count = run.storages[0], run.count(120, 20)
    with ExitStack() as stack:
        takers = {transport: own(run, stack, transport) for transport in run.transports} | others(run, stack)
        rounds: dict[str, list[Samples]] = {label: [] for label in takers}
        for number in range(run.rounds + 1):
            for label, taker in takers.items():
                times = Samples([second * 1000 for second in taker(count)])
                if number:  # the first warms up
                    rounds[label].append(times)
    shares = {"p50": 0.5, "p99": 0.99}
    found = {
        (label, share): Samples([one.percentile(shares[share]) for one in taken])
        for label, taken in rounds.items()
        for share in shares
    }
    for transport in run.transports:
        for share, bar in zip(shares, BARS.get(transport, BARS["curl"]), strict=True):
            mine = found[transport, share]
            run.read(f"{storage}, {transport}, {share}", "ms", mine, at_most(*bar))
            for label in takers:
                if label not in run.transports:
                    # The bars divided by what NATS, durable, had on the machine on which they were set.
                    goal = at_most(*(part / NATS[share] for part in bar)) if label == "NATS, durable" else None
                    run.read(f"{storage}, {transport} ÷ {label}, {share}", "×", mine.over(found[label, share]), goal)
        run.distribution(f"{storage}, {transport}", [value for one in rounds[transport] for value in one.values])
    for (label, share), theirs in found.items():
        if label not in run.transports:
            run.read(f"{label}, {share}", "ms", theirs)


FIGURES = (
    Figure("P9", "latency", "one message through an idle system, from `send` to the consumer's hands, p50 / p99",
           "≤ 2.5 / 10 ms curl; ≤ 2 / 8 ms zmq", "1 / 2 ms",
           "Two nodes; one message, wait until it is in the consumer's hands, 5 ms of rest, the next. Both nodes are "
           "opened by one process, so that one clock measures. In turns with the same through NATS from leaf to hub "
           "(nats-py) and through a shovel of RabbitMQ (a client on the raw socket).", measure, 55),
)  # fmt: skip
