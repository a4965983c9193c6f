"""P12 and P15: what trouble costs the one who sends, and how soon things go on after it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import dropr_core as dropr
from bench.figure import Figure, Run, at_most
from bench.nodes import BODY, KEY, PATIENCE, Pair, Process, has_role
from dropr_core.angel.status_file import read_state
from dropr_core.bench.samples import Samples
from dropr_core.demo.road import Road


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port at which nobody ever answers: its queue of connections is full, the rest is dropped."""
    with socket.socket() as door, ExitStack() as stack:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        port = door.getsockname()[1]
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        yield port


def send_times(node: dropr.Node, count: int) -> Samples:
    """Milliseconds of one `send` after the other."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        node.send(BODY, channel="orders")
        times.append((time.perf_counter() - started) * 1000)
    return Samples(times)


def measure_roads(run: Run) -> None:
    count, storage = run.count(300, 20), run.storages[0]
    found: dict[str, list[Samples]] = {}
    with ExitStack() as stack:
        hole = stack.enter_context(black_hole())
        roads = {"up": "", "black-holed": f"http://127.0.0.1:{hole}", "refusing": "http://127.0.0.1:9",
                 "no such name": "http://no..name:1"}  # fmt: skip
        nodes = {}
        for name, url in roads.items():
            peer = {"peers": {"store": {"url": url, "key": KEY, "fetch": False}}} if url else {}
            pair = stack.enter_context(Pair(run.directory("road"), storage=storage, shop=peer))
            if url:
                pair.start("daemon", pair.shop)
            else:
                pair.start_both()
            nodes[name] = stack.enter_context(dropr.open(pair.shop))
            found[name] = []
        for round_ in range(run.rounds + 1):
            for name, node in nodes.items():
                times = send_times(node, count)
                if round_:
                    found[name].append(times)
    late = {name: Samples([one.percentile(0.99) for one in rounds]) for name, rounds in found.items()}
    for name, rounds in found.items():
        run.read(f"{storage}, {name}, p99", "ms", late[name])
        run.distribution(name, [value for one in rounds for value in one.values])
        if name != "up":
            run.read(f"{storage}, p99 {name} ÷ up", "×", late[name].over(late["up"]), at_most(1.05))


# ── P15 ──────────────────────────────────────────────────────────────────────────────────────────

HOLDS = """
import sys, time, dropr_core as dropr
with dropr.open(sys.argv[1]) as node:
    for message in node.receive("orders", limit=1):
        print("holds", flush=True)
        time.sleep(1000)
"""


def killed_consumer(run: Run, storage: str) -> list[float]:
    """Seconds from the death of a consumer to its message in another's hands."""
    times = []
    with Pair(run.directory("killed"), storage=storage) as pair, dropr.open(pair.store) as node:
        for _ in range(run.rounds):
            words = [sys.executable, "-c", HOLDS, str(pair.store)]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
                try:
                    node.put(BODY, channel="orders")
                    assert child.stdout is not None
                    child.stdout.readline()
                    waiting = node.receive("orders", limit=1, timeout=PATIENCE)
                finally:
                    child.kill()
                started = time.perf_counter()
                for _ in waiting:
                    times.append(time.perf_counter() - started)
    return times


def first_arrival(there: dropr.Node, since: float) -> float:
    """Seconds from then until something comes; what waits besides is taken, too."""
    spent = -1.0
    for _ in there.receive("orders", limit=1, timeout=PATIENCE):
        spent = time.perf_counter() - since
    for _ in there.receive("orders", wait=0):
        pass
    if spent < 0:
        raise RuntimeError(f"nothing came within {PATIENCE:.0f} s")
    return spent


def killed_daemon(run: Run, storage: str) -> list[float]:
    """Seconds from the death of a daemon (an angel starts it again) until a message is through."""
    times = []
    with Pair(run.directory("daemon"), storage=storage, shop={"run": ["daemon"]}) as pair:
        pair.start("server", pair.store)
        angel = Process("angel", has_role("up", pair.shop), pair.directory / "angel.log")
        try:
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                here.send(BODY, channel="orders")
                first_arrival(there, time.perf_counter())
                for _ in range(run.rounds):
                    report = read_state(pair.directory / "shop" / "run" / "angel.json")
                    pid = next(child.pid for child in report.children if child.name == "daemon") if report else None
                    assert pid is not None, "the angel does not say which process is the daemon"
                    os.kill(pid, signal.SIGKILL)
                    started = time.perf_counter()
                    here.send(BODY, channel="orders")
                    times.append(first_arrival(there, started))
                    time.sleep(1.0)  # until the angel has said who is the daemon now
        finally:
            angel.stop()
    return times


def opened_road(run: Run, storage: str) -> list[float]:
    """Seconds from the end of a cut of two seconds until what waits is through."""
    times = []
    with Pair(run.directory("road"), storage=storage) as pair:
        road = Road(pair.port)
        pair.lead_through(road.start())
        try:
            pair.start_both()
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                here.send(BODY, channel="orders")
                first_arrival(there, time.perf_counter())
                for _ in range(run.rounds):
                    road.shut()
                    here.send(json.dumps("waits").encode(), channel="orders")
                    time.sleep(run.seconds(2.0))
                    road.reopen()
                    times.append(first_arrival(there, time.perf_counter()))
        finally:
            road.close()
    return times


def measure_recovery(run: Run) -> None:
    for storage in run.storages[:1]:
        run.read(f"{storage}, killed consumer", "s", killed_consumer(run, storage), at_most(1.0, 0.2))
        run.read(f"{storage}, killed daemon", "s", killed_daemon(run, storage), at_most(1.0, 0.2))
        run.read(f"{storage}, road open again", "s", opened_road(run, storage), at_most(2.0, 0.2))


FIGURES = (
    Figure("P12", "send-roads", "p99 of `send` with a black-holed, refusing or unknown peer ÷ with one that is up",
           "≤ 1.05", "", "Four nodes with a daemon each; in turns 300 messages one by one. The black hole is a port on "
           "loopback whose queue is full; the unknown name is one that cannot be looked up.", measure_roads, 6),
    Figure("P15", "recovery", "killed consumer, killed daemon, re-opened road: until it goes on",
           "≤ 1 s; ≤ 1 s; ≤ 2 s", "0.2 s", "SIGKILL to a consumer that holds a message, with another one waiting; to a "
           "daemon below `dropr up`; a relay that refuses for two seconds. Until a message is in a consumer's hands.",
           measure_recovery, 30),
)  # fmt: skip
