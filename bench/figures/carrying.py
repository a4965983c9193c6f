"""P6 and P18: from batches at the sender to acknowledged batches at the consumer, on two nodes."""

import os
import time

import dropr_core as dropr
from bench.figure import Figure, Goal, Run, at_least
from bench.nodes import Pair, Producer, Watch, kept_open
from bench.relay import Relay
from dropr_core.bench.samples import Samples

SELF = "consumer"


def carry(there: dropr.Node, producer: Producer, count: int) -> float:
    """Messages a second from the first to the last one that is acknowledged."""
    producer.start(count)
    got, started = 0, 0.0
    for batch in there.receive_batches("orders", size=1000, limit=count, wait=60):
        started = started or time.perf_counter()
        got += len(batch)
    spent = time.perf_counter() - started
    producer.wait()
    if got < count:
        raise RuntimeError(f"only {got} of {count} messages came")
    return got / spent


def rounds_of(run: Run, pair: Pair, count: int, *, rounds: int, label: str = "") -> Samples:
    """So many rounds after a warm-up; with ``label`` the cost of a message by process is noted."""
    daemon, server = pair.start_both()
    producer = Producer(pair.shop)
    with kept_open(producer), dropr.open(pair.store) as there:
        carry(there, producer, count)
        pids = {"producer": producer.pid, "daemon": daemon.pid, "server": server.pid, SELF: os.getpid()}
        watch = Watch(pids)
        rates = [carry(there, producer, count) for _ in range(rounds)]
        used = watch.end()
    for name, usage in used.items():
        if label:
            run.cost(f"{label}: {name}", usage, count * rounds)
    return Samples(rates)


def measure_end_to_end(run: Run) -> None:
    count, medians = run.count(100_000, 2000) // 1000 * 1000, {}
    for storage in run.storages:
        for transport in run.transports:
            with Pair(run.directory("pair"), storage=storage, transport=transport) as pair:
                rates = rounds_of(run, pair, count, rounds=run.rounds, label=f"{storage}, {transport}")
            goal: Goal | None = at_least(100_000) if storage == "sqlite" else at_least(160_000, 250_000)
            run.read(f"{storage}, {transport}", "/s", rates, goal)
            medians[storage, transport] = rates.median
    for transport in run.transports:
        if ("fs", transport) in medians and ("sqlite", transport) in medians:
            ratio = medians["fs", transport] / medians["sqlite", transport]
            run.read(f"fs ÷ sqlite, {transport}", "×", ratio, at_least(1.6))


def measure_far(run: Run) -> None:
    """One lane over a road of 200 ms there and back."""
    count = run.count(100_000, 2000) // 1000 * 1000
    for transport in run.transports:
        directory = run.directory("far")
        with Pair(directory, storage=run.storages[0], transport=transport) as first:
            relay = Relay(first.port, 0.1)
            with kept_open(relay):
                first.lead_through(relay.port)
                rates = rounds_of(run, first, count, rounds=max(3, run.rounds - 2))
        run.read(f"{run.storages[0]}, {transport}", "/s", rates, at_least(30_000))


FIGURES = (
    Figure("P6", "end-to-end", "end to end, two nodes, durable on both, batches", "≥ 100,000 /s sqlite; fs ≥ 1.6 × it",
           "fs 250,000 /s",
           "A producer sends 200 bytes in batches of 1000, a daemon carries them over the loopback interface, a server "
           "takes them in, a consumer acknowledges batches of 1000; from the first to the last of 100,000.",
           measure_end_to_end, 25),
    Figure("P18", "far", "end to end with a round trip of 200 ms, one lane", "≥ 30,000 /s", "line rate",
           "As P6 through a relay that holds each piece back for 100 ms each way.", measure_far, 30),
)  # fmt: skip
