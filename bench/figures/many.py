"""P11 and P24: one daemon with many peers, some of them in a bad way."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

import dropr_core as dropr
from bench.farm import Farm, peers_of
from bench.figure import Figure, Run, Series, at_most
from bench.nodes import KEY, PATIENCE, READY, Process, free_port, has_role
from bench.relay import Relay
from dropr_core.bench.samples import Samples
from dropr_core.bench.usage import threads_of

STORAGE = "sqlite"
TURNS = 4
"""Messages to each peer in a round of P11: of 98 alone the hundredth part is the slowest one, which is chance."""


def write(directory: Path, storage: str, peers: dict[str, Any], **more: Any) -> Path:
    """The sender's file."""
    file = directory / "shop.yaml"
    config = {
        "node": "shop", "data": "./shop", "storage": storage, "limits": {"min_free": 0}, "peers": peers,
        "groups": {"all": list(peers)}, "channels": {"news": {"to": "all"}}, **more,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def daemon_of(file: Path) -> Process:
    """The sender's daemon, up."""
    process = Process("daemon", has_role("daemon", file), file.parent / "daemon.log")
    process.await_ready(READY["daemon"])
    return process


def stamp() -> bytes:
    """A body that says when it was sent."""
    return json.dumps({"t": time.perf_counter()}).encode()


def gather(farm: Farm, count: int) -> tuple[float, list[float]]:
    """When the last of so many messages came, and what each took (milliseconds)."""
    times: list[float] = []
    ends = time.monotonic() + PATIENCE
    while True:
        found = farm.ask()
        times += [value for values in found["times"].values() for value in values]
        if len(times) >= count:
            return float(found["last"]), times
        if time.monotonic() > ends:
            raise RuntimeError(f"only {len(times)} of {count} messages came within {PATIENCE:.0f} s")
        time.sleep(0.05)


def multicast(node: dropr.Node, farm: Farm, count: int) -> float:
    """Seconds until a message to all has reached the last of so many."""
    started = time.perf_counter()
    node.send(stamp(), channel="news")
    last, _ = gather(farm, count)
    return last - started


def measure_many(run: Run) -> None:
    count = run.count(1000, 20)
    take_many(run, run.storages[0], count, goals=True)


def measure_peers(run: Run) -> None:
    """Throughput of multicasts against the number of peers, for the pictures."""
    points, memory = [], []
    for count in (10, 100, 1000):
        share = run.count(count, 5)
        seconds, rss = take_many(run, run.storages[0], share, goals=False)
        points.append((float(count), share / seconds))
        memory.append((float(count), rss))
    title = "a multicast: deliveries a second against peers"
    run.draw(Series("peers", title, "peers", "deliveries a second", run.storages[0], points))
    run.draw(Series("peers-memory", "memory of the daemon against peers", "peers", "MB", run.storages[0], memory))


def take_many(run: Run, storage: str, count: int, *, goals: bool) -> tuple[float, float]:
    """Seconds of a multicast to so many, and the daemon's memory after it (MB)."""
    directory, port = run.directory("many"), free_port()
    file = write(directory, storage, peers_of(f"http://127.0.0.1:{port}", count))
    with ExitStack() as stack:
        farm = Farm(port, count, directory / "farm.log")
        stack.callback(farm.close)
        daemon = daemon_of(file)
        stack.callback(daemon.stop)
        node = stack.enter_context(dropr.open(file))
        first = multicast(node, farm, count)
        seconds = [multicast(node, farm, count) for _ in range(run.rounds)]
        time.sleep(run.seconds(2.0))
        before, started = threads_of(daemon.pid), time.perf_counter()
        time.sleep(run.seconds(6.0))
        share = (threads_of(daemon.pid) - before) / (time.perf_counter() - started) * 100
        memory = daemon.memory / 1e6
    run.read(f"{storage}, {count} peers, multicast to all", "s", seconds, at_most(10.0) if goals else None)
    run.read(f"{storage}, {count} peers, the first one, with greetings", "s", first)
    run.read(f"{storage}, {count} peers, daemon idle", "% of a core", share, at_most(0.5) if goals else None)
    run.read(f"{storage}, {count} peers, memory of the daemon", "MB", memory, at_most(200) if goals else None)
    return Samples(seconds).median, memory


def measure_bad(run: Run) -> None:
    """The p99 of healthy peers with a dead and a slow one among them ÷ without."""
    healthy, storage = run.count(98, 5), run.storages[0]
    found: dict[bool, list[Samples]] = {}
    with ExitStack() as stack:
        sides = {}
        for bad in (False, True):
            directory, port = run.directory("bad"), free_port()
            peers = peers_of(f"http://127.0.0.1:{port}", healthy)
            farm = Farm(port, healthy + 1, directory / "farm.log")
            stack.callback(farm.close)
            if bad:
                relay = Relay(port, rate=1000.0)
                stack.callback(relay.close)
                peers["dead"] = {"url": f"http://127.0.0.1:{free_port()}", "key": KEY, "fetch": False}
                peers[f"n{healthy}"] = {"url": f"http://127.0.0.1:{relay.port}", "key": KEY, "fetch": False}
            file = write(directory, storage, peers)
            stack.callback(daemon_of(file).stop)
            sides[bad] = (stack.enter_context(dropr.open(file)), farm, list(peers))
            found[bad] = []
        for round_ in range(run.rounds + 1):
            times: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(TURNS):
                for bad, (node, farm, names) in sides.items():
                    times[bad] += singles(node, farm, names, healthy)
            for bad, some in times.items():
                if round_:
                    found[bad].append(Samples(some))
    for bad, rounds in found.items():
        name = "with a dead and a slow one" if bad else "all healthy"
        run.read(f"{name}, p50", "ms", [one.median for one in rounds])
        run.read(f"{name}, p99", "ms", [one.percentile(0.99) for one in rounds])
        run.distribution(name, [value for one in rounds for value in one.values])
    late = {bad: Samples([one.percentile(0.99) for one in rounds]) for bad, rounds in found.items()}
    run.read(f"{storage}, p99 ÷ without the two", "×", late[True].over(late[False]), at_most(1.1, 1.0))


def singles(node: dropr.Node, farm: Farm, names: list[str], healthy: int) -> list[float]:
    """Milliseconds of one message to each peer, the bad ones among them; of the healthy ones."""
    farm.ask()
    for name in names:
        node.send(stamp(), to=name, channel="singles")
        time.sleep(0.003)
    times: dict[str, list[float]] = {}
    ends = time.monotonic() + PATIENCE
    while sum(len(values) for name, values in times.items() if name != f"n{healthy}") < healthy:
        for name, values in farm.ask()["times"].items():
            times.setdefault(name, []).extend(values)
        if time.monotonic() > ends:
            raise RuntimeError(f"messages came to {len(times)} of {healthy} healthy peers only")
        time.sleep(0.02)
    return [value for name, values in times.items() if name != f"n{healthy}" for value in values]


FIGURES = (
    Figure("P11", "bad-peers", "100 peers, one dead, one slow (1 kB/s): p99 of the others ÷ without the two",
           "≤ 1.1", "1.0", "Two senders with a daemon each and 98 peers, one of them with the two besides; in turns a "
           "message to each peer, 3 ms apart, from `send` to the receiver's store (in memory: `bench/farm.py`). A "
           "round has four turns of each, of all of whose messages the p99 is.", measure_bad, 30),
    Figure("P24", "many-peers", "1,000 peers on one daemon: idle CPU; memory; a multicast to all until the last has it",
           "≤ 0.5 %; ≤ 200 MB; ≤ 10 s", "",
           "One sender with a daemon, 1,000 receiving nodes in one process (`bench/farm.py`); idle: six seconds.",
           measure_many, 20),
    Figure("peers", "peers", "a multicast to 10, 100 and 1,000 peers", "", "", "As P24; for the pictures.",
           measure_peers, 90, only_if_named=True),
)  # fmt: skip
