"""The figures of this machine, each beside what it is a share of, measured in the same run.

    make bench                    all of it, about a minute
    .venv/bin/python bench/run.py send latency
    .venv/bin/python bench/run.py --transport zmq end_to_end latency      curl (default), zmq (CURVE), zmq-plain
    .venv/bin/python bench/run.py --storage fs end_to_end                 sqlite (default), fs

Owns measuring only; nothing in the test suite depends on a time.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import psutil

import dropr_core as dropr
from dropr_core.plugin.registry import keypair

BODY = os.urandom(200)
KEY = "k" * 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def road(transport: str) -> tuple[str, str, str]:
    """Where the store listens, where the shop asks, and what both say about the transport."""
    port = free_port()
    if transport == "curl":
        return f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}", ""
    listen = f"zmq+tcp://127.0.0.1:{port}"
    if transport == "zmq-plain":
        return listen, listen, "transports: {zmq: {curve: false}}\n"
    secret, public = keypair("zmq")
    return listen, f"{listen}?curve={public}", f"transports: {{zmq: {{key: {secret}}}}}\n"


def write_nodes(home: Path) -> tuple[Path, Path]:
    listen, ask, more = road(os.environ.get("DROPR_BENCH_TRANSPORT", "curl"))
    more += f"storage: {os.environ.get('DROPR_BENCH_STORAGE', 'sqlite')}\n"
    (home / "shop.yaml").write_text(
        f"node: shop\nlimits: {{min_free: 0}}\n{more}peers:\n"
        f"  store: {{url: '{ask}', key: {KEY}}}\nchannels:\n  orders: {{to: store}}\n"
    )
    (home / "store.yaml").write_text(
        f"node: store\nlimits: {{min_free: 0}}\n{more}listen: ['{listen}']\npeers:\n"
        f"  shop: {{mode: pull, key: {KEY}}}\nchannels:\n  orders: {{}}\n"
        f"  work: {{handler: 'python:builtins:repr'}}\n"
    )
    return home / "shop.yaml", home / "store.yaml"


@contextlib.contextmanager
def running(*roles: tuple[str, Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    children = [subprocess.Popen([sys.executable, "-m", "dropr_core", role, "-c", str(file)]) for role, file in roles]
    try:
        time.sleep(1.5)
        yield children
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(40)


def rate(count: int, started: float) -> float:
    return count / (time.perf_counter() - started)


def bench_send(home: Path) -> None:
    """`send` one by one against raw commits of the same kind; threads together; batches."""
    db = apsw.Connection(str(home / "raw.db"))
    schema = "create table t(a integer primary key, b blob)"
    for words in ("pragma journal_mode=wal", "pragma synchronous=full", schema):
        db.execute(words).fetchall()
    shop, _ = write_nodes(home)

    def raw(seconds: float) -> float:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            db.execute("begin immediate")
            db.execute("insert into t(b) values(?)", (BODY,))
            db.execute("commit")
            count += 1
        return rate(count, started)

    with dropr.open(shop) as node:

        def send(seconds: float) -> int:
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                node.send(BODY, channel="orders")
                count += 1
            return count

        def together(seconds: float) -> float:
            counts: list[int] = []
            threads = [threading.Thread(target=lambda: counts.append(send(seconds))) for _ in range(8)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return rate(sum(counts), started)

        raws, ones, eights = [], [], []
        for _ in range(15):  # in turns: the disk's mood is the same for all
            raws.append(raw(0.3))
            started = time.perf_counter()
            ones.append(rate(send(0.3), started))
            eights.append(together(0.3))
        started = time.perf_counter()
        for _ in range(100):
            with node.batch() as batch:
                for _ in range(1000):
                    batch.send(BODY, channel="orders")
        batched = rate(100_000, started)
    base, one, eight = (statistics.median(rates) for rates in (raws, ones, eights))
    share = statistics.median(a / b for a, b in zip(ones, raws, strict=True))
    gain = statistics.median(a / b for a, b in zip(eights, ones, strict=True))
    print(f"raw SQLite WAL FULL commits        {base:10,.0f} /s")
    print(f"send, one thread                   {one:10,.0f} /s   {share:5.2f} of raw (bar 0.7)")
    print(f"send, 8 threads                    {eight:10,.0f} /s   {gain:5.2f} of one thread (bar 2.5)")
    print(f"send, batches of 1000              {batched:10,.0f} /s")


def bench_end_to_end(home: Path, total: int = 400_000) -> None:
    """Batches of 1000 at the sender to acknowledged batches at the consumer, durable on both sides."""
    shop, store = write_nodes(home)
    producer = (
        "import sys, os, dropr_core as dropr\n"
        "body = os.urandom(200)\n"
        "with dropr.open(sys.argv[1]) as node:\n"
        "    for _ in range(int(sys.argv[2]) // 1000):\n"
        "        with node.batch() as batch:\n"
        "            for _ in range(1000):\n"
        "                batch.send(body, channel='orders')\n"
    )
    with running(("daemon", shop), ("server", store)) as children, dropr.open(store) as node:
        before = [cpu(child.pid) for child in children]
        mine = time.process_time()
        child = subprocess.Popen([sys.executable, "-c", producer, str(shop), str(total)])
        got, started = 0, 0.0
        for batch in node.receive_batches("orders", size=1000, limit=total, wait=20):
            started = started or time.perf_counter()
            got += len(batch)
        spent = time.perf_counter() - started
        child.wait()
        used = [after - b for after, b in zip((cpu(c.pid) for c in children), before, strict=True)]
        print(f"end to end, {total} messages        {got / spent:10,.0f} /s   (bar 60,000)")
        print(
            f"  CPU a message: daemon {used[0] / got * 1e6:.1f} µs, server {used[1] / got * 1e6:.1f} µs, "
            f"consumer {(time.process_time() - mine) / got * 1e6:.1f} µs"
        )


def bench_latency(home: Path, count: int = 500) -> None:
    """One message through an idle system, from before `send` to the consumer's hands."""
    shop, store = write_nodes(home)
    with running(("daemon", shop), ("server", store)), dropr.open(store) as there, dropr.open(shop) as here:
        times: list[float] = []
        arrived = threading.Event()
        ready = threading.Event()

        def consume() -> None:
            ready.set()
            for received in there.receive("orders", limit=count):
                times.append(time.perf_counter() - json.loads(received.body)["t"])
                arrived.set()

        thread = threading.Thread(target=consume)
        thread.start()
        ready.wait()
        for _ in range(count):
            arrived.clear()
            here.send(json.dumps({"t": time.perf_counter()}).encode(), channel="orders")
            arrived.wait(10)
            time.sleep(0.005)
        thread.join()
    times.sort()
    print(
        f"one message, idle system           p50 {times[len(times) // 2] * 1000:.2f} ms, "
        f"p99 {times[int(len(times) * 0.99)] * 1000:.2f} ms   (bar: median 5 ms)"
    )


def bench_body(home: Path, size: int = 1 << 30) -> None:
    """A large body between two nodes against `cp` and fsync; what small urgent messages wait meanwhile."""
    movie, copy, block = home / "movie", home / "copy", os.urandom(1 << 20)

    def write(path: Path) -> float:
        started = time.perf_counter()
        with path.open("wb") as file:
            for number in range(size >> 20):
                file.write(number.to_bytes(8, "big") + block[8:])
            file.flush()
            os.fsync(file.fileno())
        return time.perf_counter() - started

    def copied() -> float:
        started = time.perf_counter()
        subprocess.run(["cp", movie, copy], check=True)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        spent = time.perf_counter() - started
        copy.unlink()
        return spent

    def warm() -> None:
        """Have the machine give us memory for the file system's cache: new memory is slower to get than a disk is."""
        with copy.open("wb") as file:
            for _ in range(3 * size >> 20):
                file.write(block)
        copy.unlink()

    write(movie)
    shop, store = write_nodes(home)
    with running(("daemon", shop), ("server", store)) as children, dropr.open(store) as there, dropr.open(shop) as here:
        idle = [psutil.Process(child.pid).memory_info().rss for child in children]
        peak, done = [0, 0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                for index, child in enumerate(children):
                    peak[index] = max(peak[index], psutil.Process(child.pid).memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        bases, sends, ways = [], [], []
        for _ in range(5):
            warm()
            bases.append(copied())
            started = time.perf_counter()
            here.send(movie, to="store", channel="films")
            stored = time.perf_counter()
            for _ in there.receive("films", limit=1, timeout=300):
                ways.append(time.perf_counter() - stored)
            sends.append(stored - started)
            time.sleep(6)  # until both nodes have swept the bodies away
        waits = urgent(here, there, movie)
        done.set()
        watcher.join()
    base, send, way = (statistics.median(times) for times in (bases, sends, ways))
    share = statistics.median(a / b for a, b in zip(bases, ways, strict=True))
    print(
        f"a body of {size >> 20} MiB: cp + fsync {base:.2f} s, send {send:.2f} s, then to the consumer {way:.2f} s: "
        f"{share:.2f} of cp (bar 0.4)"
    )
    print(
        "  memory above idle: "
        + ", ".join(f"{(most - before) / 2**20:.0f} MiB" for most, before in zip(peak, idle, strict=True))
        + " (bar 64)"
    )
    waits.sort()
    print(
        f"  {len(waits)} urgent messages meanwhile: p50 {waits[len(waits) // 2] * 1000:.1f} ms, "
        f"p99 {waits[int(len(waits) * 0.99)] * 1000:.1f} ms (bar 100), most {waits[-1] * 1000:.1f} ms"
    )


def urgent(here: dropr.Node, there: dropr.Node, movie: Path) -> list[float]:
    """Seconds that small messages take while a large body is on its way."""
    here.send(movie, to="store", channel="films")
    waits: list[float] = []
    while here.outbox.peers()["store"].waiting:
        here.send(json.dumps({"t": time.perf_counter()}).encode(), channel="orders", priority=0)
        for received in there.receive("orders", limit=1, timeout=60):
            waits.append(time.perf_counter() - json.loads(received.body)["t"])
        time.sleep(0.02)
    return waits


def bench_idle(home: Path, seconds: float = 30.0) -> None:
    """Daemon, server and worker of a node with nothing to do."""
    _shop, store = write_nodes(home)
    roles = (("daemon", store), ("server", store), ("worker", store))
    with running(*roles) as children:
        time.sleep(2)
        before = [cpu(child.pid) for child in children]
        time.sleep(seconds)
        used = [after - b for after, b in zip((cpu(c.pid) for c in children), before, strict=True)]
        memory = [psutil.Process(child.pid).memory_info().rss / 2**20 for child in children]
    each = ", ".join(f"{role} {share / seconds * 100:.3f} %" for (role, _), share in zip(roles, used, strict=True))
    print(f"idle node                          {sum(used) / seconds * 100:.3f} % of a core (bar 0.2): {each}")
    print("  memory: " + ", ".join(f"{role} {mb:.0f} MiB" for (role, _), mb in zip(roles, memory, strict=True)))


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


BENCHES = {
    "send": bench_send, "end_to_end": bench_end_to_end, "latency": bench_latency, "body": bench_body,
    "idle": bench_idle,
}  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description="Measure dropr on this machine.")
    words.add_argument("names", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; default: all")
    words.add_argument("--transport", choices=("curl", "zmq", "zmq-plain"), default="curl")
    words.add_argument("--storage", choices=("sqlite", "fs"), default="sqlite")
    asked = words.parse_args()
    os.environ["DROPR_BENCH_STORAGE"] = asked.storage
    os.environ["DROPR_BENCH_TRANSPORT"] = asked.transport
    for name in asked.names or list(BENCHES):
        with tempfile.TemporaryDirectory(prefix="dropr-bench-") as home:
            BENCHES[name](Path(home))


if __name__ == "__main__":
    main()
