"""The Gearman door beside gearmand, which keeps jobs in memory, by the same socket, round by round.

Owns the comparison; the client stands in `bench/peers/gearmand.py`. In each round both do the same, one after the
other, and the ratio is that of the round: the machine's speed wanders.
"""

import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.figure import Figure, Run, Skipped, at_least
from bench.nodes import free_port, node_file
from bench.peers.gearmand import Client, missing, version
from bench.peers.servers import server
from dropr_core.bench.samples import Samples


def rate(port: int, clients: int, count: int, work: Callable[[Client, int], None]) -> tuple[float, float]:
    """Jobs a second of so many connections together, and how much of a core the clients took for it."""
    each = count // clients
    connections = [Client(port) for _ in range(clients)]
    threads = [threading.Thread(target=work, args=(one, each), daemon=True) for one in connections]
    begun, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, used = time.perf_counter() - begun, time.process_time() - used
    for one in connections:
        one.close()
    return each * clients / took, used / took


def submitting(client: Client, count: int) -> None:
    """One by one."""
    client.submit(count)


def ahead(client: Client, count: int) -> None:
    """A hundred in one write."""
    client.submit(count, 100)


def working(client: Client, count: int) -> None:
    """One by one."""
    client.work(count)


KINDS = (
    ("submit, one client", 1, submitting, 1),
    ("grab + complete, one worker", 1, working, 1),
    ("submit, eight clients", 8, submitting, 1),
    ("grab + complete, eight workers", 8, working, 1),
    ("submit, eight clients, 100 ahead", 8, ahead, 10),
    ("grab + complete, eight workers, many jobs", 8, working, 10),
)
"""What, connections, work, times so many jobs. Each that takes follows the one that gave as many."""


def measure(run: Run) -> None:
    """Both servers run beside each other; only one of them has work at a time."""
    if why := missing():
        raise Skipped(why)
    home, theirs, ours = run.directory("gearmand"), free_port(), free_port()
    run.note(f"{version()}; as it ships, in memory; the door on {run.storages[0]}, durable")
    file = node_file(run, run.storages[0], gateways={"gearman": {"listen": f"tcp://127.0.0.1:{ours}"}})
    words = [sys.executable, "-m", "dropr_core", "gateway", "-c", str(file)]
    original = [shutil.which("gearmand") or "", "-L", "127.0.0.1", "-p", str(theirs), "-l", str(home / "gearmand.log")]
    with server(original, home, theirs), server(words, Path(file).parent, ours):
        rates: dict[str, list[tuple[float, float]]] = {}
        shares: dict[str, list[tuple[float, float]]] = {}
        for turn in range(run.rounds + 1):
            for name, clients, work, times in KINDS:
                count = run.count(800, 80) * times
                (beside, share), (mine, other) = (rate(port, clients, count, work) for port in (theirs, ours))
                if turn:
                    rates.setdefault(name, []).append((beside, mine))
                    shares.setdefault(name, []).append((share, other))
    for name, pairs in rates.items():
        their, our = (statistics.median(some) for some in zip(*shares[name], strict=True))
        run.note(f"the client's share of a core, {name}: gearmand {their:.2f}, the door {our:.2f}")
        run.read(f"gearmand: {name}", "/s", [original for original, _ in pairs])
        run.read(f"door: {name}", "/s", [mine for _, mine in pairs])
        run.read(f"door ÷ gearmand: {name}", "×", Samples([mine / theirs for theirs, mine in pairs]), at_least(0.5))


FIGURES = (
    Figure("gearman-door", "gearman-door", "Gearman door, durable ÷ gearmand, which keeps jobs in memory", "≥ 0.5", "",
           "Background jobs of 200 bytes by a raw socket: JOB_CREATED is said after the flush here, and there before "
           "anything is safe.", measure, 60, only_if_named=True),
)  # fmt: skip
