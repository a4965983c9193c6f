"""What ten thousand channels and a thousand consumers cost; for docs/scale.md, taken only if named."""

import time
from contextlib import ExitStack

import dropr_core as dropr
from bench.backlog import Peer
from bench.figure import Figure, Run
from bench.nodes import BODY, node_file
from dropr_core.bench.samples import Samples, rate_of
from dropr_core.bench.usage import memory_of


def measure_channels(run: Run) -> None:
    import os

    count = run.count(10_000, 50)
    for storage in run.storages:
        names = [f"c{number}" for number in range(count)]
        file = node_file(run, storage, channels={name: {"to": "store"} for name in names})
        before, started = memory_of(os.getpid()), time.perf_counter()
        with dropr.open(file) as node:
            run.read(f"{storage}, opening with {count:,} channels", "s", time.perf_counter() - started)
            (one,) = [rate_of(lambda: int(bool(node.send(BODY, channel=names[0]))), run.seconds(1.0))]  # noqa: B023
            started = time.perf_counter()
            for first in range(0, count, 1000):
                with node.batch() as batch:
                    for name in names[first : first + 1000]:
                        batch.send(BODY, channel=name)
            run.read(f"{storage}, send to a channel each", "/s", count / (time.perf_counter() - started))
            run.read(f"{storage}, send one by one into one of them", "/s", one)
            looks = []
            for _ in range(run.rounds):
                started = time.perf_counter()
                node.outbox.lanes()
                looks.append((time.perf_counter() - started) * 1000)
            run.read(f"{storage}, a look at {count:,} lanes", "ms", looks)
            peer = Peer(node)
            for name in names[:100]:
                peer.push(1, name)
            started, got = time.perf_counter(), 0
            for _ in node.receive(*names[:100], limit=min(100, count), wait=5):
                got += 1
            run.read(f"{storage}, receive one each from 100 of them", "/s", got / (time.perf_counter() - started))
            run.read(f"{storage}, memory for it", "MB", (memory_of(os.getpid()) - before) / 1e6)


def measure_consumers(run: Run) -> None:
    import os

    count = run.count(1000, 20)
    for storage in run.storages:
        with ExitStack() as stack:
            node = stack.enter_context(dropr.open(node_file(run, storage)))
            peer, before, started = Peer(node), memory_of(os.getpid()), time.perf_counter()
            consumers = [node.consumer("orders") for _ in range(count)]
            for one in consumers:
                stack.callback(one.close)
            for one in consumers:
                one.claim(1)  # registered with the first claim at the latest
            run.read(f"{storage}, {count:,} consumers are there after", "s", time.perf_counter() - started)
            run.read(f"{storage}, memory for them", "MB", (memory_of(os.getpid()) - before) / 1e6)
            times = []
            for _ in range(run.rounds):
                peer.push(count)
                started = time.perf_counter()
                for one in consumers:
                    for received in one.claim(1):
                        received.ack()
                times.append(count / (time.perf_counter() - started))
            run.read(f"{storage}, each takes one and acknowledges it", "/s", Samples(times))


FIGURES = (
    Figure("channels", "channels", "10,000 channels of one node", "", "",
           "A node whose file names so many; one message into each, then a look, and 100 of them received.",
           measure_channels, 120, only_if_named=True),
    Figure("consumers-1000", "many-consumers", "1,000 consumers of one channel", "", "",
           "Consumers of one process, driven by hand, one after the other.", measure_consumers, 90, only_if_named=True),
)  # fmt: skip
