"""P7 and P8: the same work done by others in the same run, each in its best client mode.

Owns the comparison; how each is run stands in `bench/peers/`, one file a queue. Must not know their protocols.
"""

from collections.abc import Iterator

import dropr_core as dropr
from bench.figure import Figure, Goal, Run, Skipped, at_least
from bench.figures.carrying import carry
from bench.nodes import Pair, Producer, kept_open
from bench.peers import figure as peers
from dropr_core.bench.samples import Samples


def ours(run: Run, storage: str) -> Samples:
    """End to end by dropr, over HTTP."""
    count = run.count(100_000, 2000) // 1000 * 1000
    with Pair(run.directory("pair"), storage=storage) as pair:
        pair.start_both()
        producer = Producer(pair.shop)
        with kept_open(producer), dropr.open(pair.store) as there:
            carry(there, producer, count)
            return Samples([carry(there, producer, count) for _ in range(run.rounds)])


def taken(run: Run, name: str, messages: int, rounds: int) -> Iterator[peers.Figure]:
    """The figures of a peer, noted with how they were taken. Raises Skipped."""
    peer = peers.load(name)
    if why := peer.missing():
        raise Skipped(why)
    run.note(f"{peer.NAME}: {peer.version()}")
    for one in peer.measure(run.directory(name), messages, rounds):
        run.note(f"{peer.NAME}, {one.what}: {one.value:,.1f} ({one.mode}; {one.command})")
        yield one


def beside(run: Run, name: str, count: int, goals: dict[bool, Goal], rounds: int) -> None:
    """End to end by dropr, by the peer, and by dropr again: the machine's speed wanders."""
    before = [ours(run, storage) for storage in run.storages]
    found = list(taken(run, name, run.count(count, 1000), rounds))
    after = [ours(run, storage) for storage in run.storages]
    mine = {
        storage: Samples([*early.values, *late.values])
        for storage, early, late in zip(run.storages, before, after, strict=True)
    }
    for storage, rates in mine.items():
        run.read(f"dropr, {storage}", "/s", rates)
    for one in found:
        kind = "durable" if one.durable else "default"
        unit = "ms" if one.what.startswith("latency") else "/s"
        whose = f"{peers.load(name).NAME} ({one.mode.split(',')[0]}, {kind})"
        run.read(f"{whose}, {one.what}", unit, one.value)
        if one.what == "end to end":
            for storage, rates in mine.items():
                run.read(f"dropr, {storage} ÷ {whose}", "×", rates.median / one.value, goals.get(one.durable))


def measure_nats(run: Run) -> None:
    beside(run, "nats", 20_000, {True: at_least(30, 55), False: at_least(2.5, 4)}, 3)


def measure_rabbitmq(run: Run) -> None:
    beside(run, "rabbitmq", 20_000, {True: at_least(8, 10)}, 3)


def measure_local_queues(run: Run) -> None:
    """Queues on one machine: what they take in and give out, one by one."""
    found = 0
    for name in ("beanstalkd", "huey_sqlite", "litequeue_sqlite", "persistqueue_sqlite"):
        try:
            for one in taken(run, name, run.count(20_000, 1000), 3):
                kind = "durable" if one.durable else "default"
                run.read(f"{peers.load(name).NAME}, {one.what}, {kind}", "/s", one.value)
                found += 1
        except Skipped as why:
            run.note(f"{peers.load(name).NAME}: skipped, {why}")
    if not found:
        raise Skipped("none of beanstalkd, huey, litequeue and persist-queue is installed")


FIGURES = (
    Figure("P7", "nats", "end to end ÷ NATS leaf → hub in the same run: durable / its default",
           "≥ 30 / ≥ 2.5", "55 / 4",
           "P6 (HTTP) of both storages before and after; NATS with a leaf whose stream is sourced by a hub, 1000 "
           "publishes in flight, a push consumer that acknowledges each 500th for all before it; durable is "
           "sync_interval: always.",
           measure_nats, 70),
    Figure("P8", "rabbitmq", "end to end ÷ RabbitMQ shovel in the same run (its best client mode)", "≥ 8", "10",
           "P6 (HTTP) of both storages before and after; two brokers, durable queues, a shovel on confirm, 1000 "
           "unconfirmed and a prefetch of 1000, by a client on the raw socket.", measure_rabbitmq, 70),
    Figure("local-queues", "local-queues", "beanstalkd, huey, litequeue, persist-queue: in and out one by one", "", "",
           "Each by its own client; beanstalkd with -f0 and without a log.",
           measure_local_queues, 60, only_if_named=True),
)  # fmt: skip
