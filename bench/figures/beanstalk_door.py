"""The beanstalk door beside beanstalkd with its log synced at each write: the same client, round by round.

Owns the comparison. The client is that of `bench/peers/beanstalkd.py`. In each round both do the same, one after the
other, and the ratio is that of the round: the machine's speed wanders.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.figure import Figure, Run, Skipped, at_least
from bench.nodes import free_port, node_file
from bench.peers.beanstalkd import Client, missing, timed, version
from bench.peers.servers import server
from dropr_core.bench.samples import Samples

CONNECTIONS = 8


def together(port: int, count: int, work: Callable[[Client], Callable[[int], None]]) -> float:
    """So much a second by eight connections, each one by one."""
    clients = [Client(port) for _ in range(CONNECTIONS)]
    threads = [
        threading.Thread(target=one.one_by_one, args=(work(one), count // CONNECTIONS), daemon=True) for one in clients
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    for one in clients:
        one.close()
    return count // CONNECTIONS * CONNECTIONS / took


def putting(client: Client) -> Callable[[int], None]:
    """The work of `together`."""
    return client.put


def taking(client: Client) -> Callable[[int], None]:
    """The work of `together`."""
    return client.take


def alone(port: int, count: int, work: Callable[[Client], Callable[[int], None]]) -> float:
    """So much a second by one connection, one by one."""
    client = Client(port)
    do = work(client)
    rate = timed(count, lambda: client.one_by_one(do, count))
    client.close()
    return rate


KINDS = (
    ("put, one by one", alone, putting, 1.0),
    ("reserve + delete, one by one", alone, taking, 1.0),
    ("put, 8 connections", together, putting, 3.0),
    ("reserve + delete, 8 connections", together, taking, 3.0),
)


def measure(run: Run) -> None:
    """Both servers run beside each other; only one of them has work at a time."""
    if why := missing():
        raise Skipped(why)
    run.note(f"{version()}; -b DIR -f0, the door on {run.storages[0]}")
    home, theirs, ours = run.directory("beanstalkd"), free_port(), free_port()
    log = home / "binlog"
    log.mkdir()
    gateways = {"beanstalk": {"listen": f"tcp://127.0.0.1:{ours}"}}
    file = node_file(run, run.storages[0], gateways=gateways)
    words = [sys.executable, "-m", "dropr_core", "gateway", "-c", str(file)]
    original = [shutil.which("beanstalkd") or "", "-l", "127.0.0.1", "-p", str(theirs), "-b", str(log), "-f0"]
    with server(original, home, theirs), server(words, Path(file).parent, ours):
        compare(run, theirs, ours)


def compare(run: Run, theirs: int, ours: int) -> None:
    """All kinds of work, in rounds, after one that warms up."""
    count = run.count(1600, 80)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in KINDS}
    for turn in range(run.rounds + 1):
        for name, how, work, _ in KINDS:
            pair = how(theirs, count, work), how(ours, count, work)
            if turn:
                rates[name].append(pair)
    for name, *_, bar in KINDS:
        run.read(f"beanstalkd -f0: {name}", "/s", [original for original, _ in rates[name]])
        run.read(f"door: {name}", "/s", [mine for _, mine in rates[name]])
        ratios = Samples([mine / original for original, mine in rates[name]])
        run.read(f"door ÷ beanstalkd -f0: {name}", "×", ratios, at_least(bar))


FIGURES = (
    Figure("beanstalk-door", "beanstalk-door", "beanstalk door ÷ beanstalkd -f0, the same client in one run",
           "≥ 1 one by one, ≥ 3 by eight connections", "",
           "INSERTED is on stable storage on both sides; DELETED is there at once, here after the flush interval.",
           measure, 60, only_if_named=True),
)  # fmt: skip
