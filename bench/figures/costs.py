"""What one message costs each process: processor, system calls, syncs, bytes on the disk and on the wire."""

from pathlib import Path
from typing import Any

import dropr_core as dropr
from bench.backlog import send_many
from bench.figure import Figure, Run
from bench.nodes import Pair, Producer, Watch, kept_open, node_file
from bench.relay import Relay
from bench.tracing import SYNCS, Tracing, why_not

CONSUMER = """
import sys, dropr_core as dropr
with dropr.open(sys.argv[1]) as node:
    print("up", flush=True)
    for line in sys.stdin:
        for batch in node.receive_batches("orders", size=1000, limit=int(line.split()[0]), wait=60):
            pass
        print("done", flush=True)
"""


class Consumer(Producer):
    """A process that takes so many messages when it is told to."""

    program = CONSUMER


def disk_use(directory: Path) -> int:
    """Bytes that the files below a directory take on the disk."""
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file())


def measure(run: Run) -> None:
    reason = why_not(run.home)
    if reason:
        run.note(f"system calls and syncs are not counted: {reason}")
    for storage in run.storages:
        for transport in run.transports:
            take(run, storage, transport, trace=not reason)


def take(run: Run, storage: str, transport: str, *, trace: bool) -> None:
    label, count = f"{storage}, {transport}", run.count(50_000, 2000) // 1000 * 1000
    with Pair(run.directory("cost"), storage=storage, transport=transport) as pair:
        relay = Relay(pair.port)
        pair.lead_through(relay.port)
        with kept_open(relay):
            daemon, server = pair.start_both()
            producer, consumer = Producer(pair.shop), Consumer(pair.store)
            with kept_open(producer, consumer):
                pids = {"producer": producer.pid, "daemon": daemon.pid, "server": server.pid, "consumer": consumer.pid}
                whole(producer, consumer, count)
                there, back = relay.counted()
                watch = Watch(pids)
                for _ in range(run.rounds):
                    whole(producer, consumer, count)
                used = watch.end()
                wire = [
                    (now - before) / count / run.rounds
                    for now, before in zip(relay.counted(), (there, back), strict=True)
                ]
                calls: dict[str, Any] = {}
                traced = max(1000, count // 5 // 1000 * 1000)
                if trace:
                    tracing = Tracing(pids, run.home)
                    whole(producer, consumer, traced)
                    calls = tracing.end()
                for name, usage in used.items():
                    table = calls.get(name)
                    more = {} if table is None else {
                        "calls": sum(table.values()) / traced,
                        "syncs": sum(number for call, number in table.items() if call in SYNCS) / traced,
                    }  # fmt: skip
                    run.cost(f"{label}: {name}", usage, count * run.rounds, **more)
                    if table:
                        most = sorted(table.items(), key=lambda item: -item[1])[:6]
                        words = ", ".join(f"{call} {number / traced * 1000:.1f}" for call, number in most)
                        run.note(f"{label}, {name}, calls for 1000 messages: {words}")
                run.read(f"{label}, wire", "bytes a message", wire[0] + wire[1])
                run.read(f"{label}, all processes", "µs of a processor a message",
                         sum(usage.cpu for usage in used.values()) / count / run.rounds * 1e6)  # fmt: skip


def whole(producer: Producer, consumer: Producer, count: int) -> None:
    """So many messages from one to the other."""
    consumer.start(count)
    producer.start(count)
    producer.wait()
    consumer.wait()


def measure_disk(run: Run) -> None:
    """Bytes of the store for each message that waits in the outbox."""
    count = run.count(100_000, 5000)
    for storage in run.storages:
        file = node_file(run, storage)
        with dropr.open(file) as node:
            before = disk_use(file.parent)
            send_many(node, count)
        run.read(
            f"{storage}, waiting in the outbox", "bytes a message of 200", (disk_use(file.parent) - before) / count
        )


FIGURES = (
    Figure("cost", "cost", "what one message costs each process, end to end in batches of 1000", "", "",
           "As P6 through a relay that counts bytes. CPU, switches and bytes to the disk are the kernel's counters "
           "(/proc); system calls and syncs are counted by strace in a run of their own.", measure, 50),
    Figure("disk", "disk", "bytes on the disk for each message that waits", "", "",
           "100,000 messages of 200 bytes in the outbox, by the blocks of all files.", measure_disk, 5),
)  # fmt: skip
