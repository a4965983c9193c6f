"""What strangers without a key cost: a flood of requests that are refused, and connections that say nothing.

    .venv/bin/python bench/strangers.py                              all of it over curl, about half a minute
    .venv/bin/python bench/strangers.py --transport zmq flood        curl (default), zmq (CURVE), zmq-plain

flood: what a refused request costs the server (CPU, lines in its log), and what is left of the legitimate traffic
beside a flood of --rate requests a second. Over HTTP each comes on a connection of its own, over ZeroMQ all on one;
with --patient the flood waits for each refusal and keeps its connection. idle: how many of 300 requests with the key
are answered within a second each, beside --connections that send nothing. Owns measuring only.
"""

import argparse
import contextlib
import functools
import logging
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
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

import dropr_core as dropr
from bench.nodes import BODY, KEY, Pair
from dropr_core.contracts.transport import Connection
from dropr_core.errors import DroprError
from dropr_core.protocol.frames import REQUEST, FrameHeader, request_id, seal

WRONG = b"a key that nobody here has, of 40 bytes."
SECONDS = 5.0
TURN, PAIRS = 2.0, 9


def request(key: bytes) -> bytes:
    """A request of 2 kB for a verb that nobody knows: refused at once with the wrong key, else answered."""
    return seal(REQUEST, FrameHeader("shop", "store", request_id(), "nothing", b""), bytes(2000), key)[0]


def connect(url: str) -> Connection:
    """A connection of a transport of its own."""
    if url.startswith("zmq"):
        from dropr_transport_zmq import Options, make

        return make(Options(curve="curve=" in url), logging.getLogger()).connect(url)
    from dropr_transport_curl import CurlTransport
    from dropr_transport_curl import Options as CurlOptions

    return CurlTransport(CurlOptions(), logging.getLogger()).connect(url)


def patient_over_http(url: str) -> Iterator[None]:
    """One by one; a connection is used again if the server lets it."""
    while True:
        with contextlib.suppress(OSError), dial(url) as line:
            back = b"."
            while back and b"connection: close" not in back.lower():
                line.sendall(post())
                back = line.recv(65536)
                yield


def hurried_over_http(url: str) -> Iterator[None]:
    """Each on a new connection, which is left at once."""
    while True:
        with contextlib.suppress(OSError), dial(url) as line:
            line.sendall(post())
        yield


def patient_over_zmq(url: str) -> Iterator[None]:
    """Fifty under way on one connection."""
    connection, waiting = connect(url), list[Future[bytes]]()
    while True:
        waiting.append(connection.ask(request(WRONG), idle=10))
        if len(waiting) >= 50:
            waiting.pop(0).exception(10)
        yield


def hurried_over_zmq(url: str) -> Iterator[None]:
    """On a bare socket, which connects again when it is cut off; what comes back is thrown away."""
    import zmq
    from dropr_transport_zmq.frames import Kind, pack
    from dropr_transport_zmq.keys import new_secret, public_to_z85, secret_to_z85

    dealer: Any = zmq.Context.instance().socket(zmq.DEALER)
    where, _, server = url.removeprefix("zmq+").partition("?curve=")
    if server:
        mine = secret_to_z85(new_secret())
        dealer.curve_serverkey, dealer.curve_secretkey = public_to_z85(server), mine
        dealer.curve_publickey = zmq.curve_public(mine)
    dealer.connect(where)
    number = 0
    while True:
        number += 1
        body = request(WRONG)
        with contextlib.suppress(zmq.Again):
            dealer.send_multipart([pack(Kind.ASK, number, len(body)), body], zmq.NOBLOCK)
            yield
        while dealer.poll(0):
            dealer.recv_multipart()


FLOODS = {
    ("http", True): patient_over_http, ("http", False): hurried_over_http,
    ("zmq", True): patient_over_zmq, ("zmq", False): hurried_over_zmq,
}  # fmt: skip


@functools.cache
def post() -> bytes:
    body = request(WRONG)
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@functools.cache
def where(url: str) -> tuple[str, int]:
    return urlsplit(url).hostname or "", urlsplit(url).port or 0


def dial(url: str) -> socket.socket:
    """A connection, as cheap as it can be had: what the flood itself costs here, the node does not have."""
    line = socket.socket()
    line.connect(where(url))
    return line


def flood(url: str, rate: float, seconds: float, patient: bool) -> int:
    """Send refused requests from eight threads, at most ``rate`` a second; how many that were."""
    counts = [0] * 8
    ends = time.monotonic() + seconds

    def run(place: int) -> None:
        due = time.monotonic()
        for _ in FLOODS["zmq" if url.startswith("zmq") else "http", patient](url):
            counts[place] += 1
            if (now := time.monotonic()) >= ends:
                return
            due = max(due + len(counts) / rate, now - 0.2)  # who was stopped for a while does not make up for it
            time.sleep(max(0.0, due - now))

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 15)
    return sum(counts)


@contextlib.contextmanager
def flooding(url: str, rate: float, seconds: float, patient: bool) -> Iterator["subprocess.Popen[str]"]:
    """A flood in a process of its own, which prints how many it sent."""
    words = [sys.executable, __file__, "--url", url, "--rate", str(rate), "--seconds", str(seconds), "only-flood"]
    words += ["--patient"] * patient
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def cpu(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def traffic(shop: Path, store: Path, flood: "subprocess.Popen[str]", pairs: int) -> list[tuple[float, float]]:
    """Messages a second, from batches at the sender to acknowledged batches at the consumer: without, with the flood.

    In turns of two seconds, because other programs on this machine disturb both.
    """
    over = threading.Event()

    def send() -> None:
        with dropr.open(shop) as node:
            while not over.is_set():
                state = node.outbox.peers().get("store")
                if state is not None and state.waiting > 20_000:
                    time.sleep(0.01)
                    continue
                with node.batch() as batch:
                    for _ in range(1000):
                        batch.send(BODY, channel="orders")

    producer = threading.Thread(target=send)
    producer.start()
    rates: list[float] = []
    with dropr.open(store) as node:
        pages = node.receive_batches("orders", size=1000, wait=20)
        for page in range(2 * pairs):
            flood.send_signal(signal.SIGCONT if page % 2 else signal.SIGSTOP)
            time.sleep(0.2)
            got, started = 0, time.monotonic()
            for found in pages:
                got += len(found)
                if time.monotonic() - started >= TURN:
                    break
            rates.append(got / (time.monotonic() - started))
        over.set()
        producer.join()
        for _ in node.receive_batches("orders", size=1000, wait=2):
            pass
    return list(zip(rates[::2], rates[1::2], strict=True))


def bench_flood(pair: Pair, rate: float, patient: bool) -> None:
    """The cost of one refused request, and of a flood of them."""
    url = pair.ask
    with contextlib.closing(pair):
        _, server = pair.start_both()
        log = server.log
        before, lines = cpu(server.pid), log.read_bytes().count(b"\n")
        with flooding(url, rate, SECONDS, patient) as child:
            assert child.stdout is not None
            sent = int(child.stdout.readline())
            its = cpu(child.pid)
        used, lines = cpu(server.pid) - before, log.read_bytes().count(b"\n") - lines
        print(f"refused requests                   {sent / SECONDS:10,.0f} /s   (asked for {rate:,.0f})")
        print(f"  CPU of the server for each       {used / sent * 1e6:10,.0f} µs")
        print(f"  CPU of the flood for each        {its / sent * 1e6:10,.0f} µs   (on this machine, too)")
        print(f"  lines in its log for each 1000   {lines / sent * 1000:10,.1f}")
        with flooding(url, rate, 600, patient) as child:
            pairs = traffic(pair.shop, pair.store, child, PAIRS)
        alone, beside = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        share = statistics.median(there / here for here, there in pairs)
        print(f"messages, nobody else              {alone:10,.0f} /s")
        print(f"messages beside the flood          {beside:10,.0f} /s   ({share:.0%}, median of {PAIRS} pairs)")


def bench_idle(pair: Pair, connections: int) -> None:
    """Whether connections that say nothing leave room for those with the key."""
    where = urlsplit(pair.ask)
    with contextlib.closing(pair), contextlib.ExitStack() as stack:
        pair.start("server", pair.store)
        opened = 0
        for _ in range(connections):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection((where.hostname, where.port or 0), 1))
                opened += 1
        answered, started = 0, time.monotonic()
        for _ in range(300):
            with contextlib.closing(connect(pair.ask)) as connection, contextlib.suppress(DroprError, Late):
                connection.ask(request(KEY.encode()), idle=1).result(1)
                answered += 1
        print(f"answered beside {opened} idle connections   {answered} of 300 in {time.monotonic() - started:.1f} s")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["flood", "idle"], help="flood, idle")
    parser.add_argument("--transport", default="curl", choices=["curl", "zmq", "zmq-plain"])
    parser.add_argument("--rate", type=float, default=2750.0)
    parser.add_argument("--connections", type=int, default=4300)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--patient", action="store_true")
    parser.add_argument("--url")
    asked = parser.parse_args()
    if asked.what == ["only-flood"]:
        print(flood(asked.url, asked.rate, asked.seconds, asked.patient), flush=True)
        os._exit(0)  # its connections may be in the middle of something
    for what in asked.what:
        with Pair(Path(tempfile.mkdtemp()), transport=asked.transport) as pair:
            if what == "flood":
                bench_flood(pair, asked.rate, asked.patient)
            else:
                bench_idle(pair, asked.connections)


if __name__ == "__main__":
    main()
