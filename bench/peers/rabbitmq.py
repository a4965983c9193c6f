"""RabbitMQ: a queue at one broker, a shovel (on-confirm), a queue at a second broker.

Owns their configuration and the two clients. A persistent message in a durable queue is confirmed when it is on stable
storage: that is what is measured; a broker has no weaker default for it.
"""

import contextlib
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.peers.amqp import Amqp
from bench.peers.figure import BODY, Figure, Latencies, repeated
from bench.peers.servers import free_port, server

NAME = "RabbitMQ"
HOME = Path("/usr/lib/rabbitmq/bin")
IN_FLIGHT = 1000
KINDS = ("classic", "quorum")


def missing() -> str:
    """Why it cannot be measured here."""
    return "" if (HOME / "rabbitmq-server").exists() else "rabbitmq-server is not installed"


def version() -> str:
    """The broker's; the client is our own (amqp.py)."""
    found = subprocess.run([HOME / "rabbitmqctl", "version"], capture_output=True, text=True, check=True)
    return f"RabbitMQ {found.stdout.strip()}, client bench/peers/amqp.py"


def environment(home: Path, name: str, port: int, distribution: int) -> dict[str, str]:
    """One broker's files, name and ports."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "plugins").write_text("[rabbitmq_shovel].\n")
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console.level = error\n")
    return {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
    }


@contextlib.contextmanager
def two_brokers(home: Path) -> Iterator[tuple[int, int]]:
    """Ports of a broker and of the one that a shovel carries to."""
    first, second = free_port(), free_port()
    here = environment(home / "a", f"dropr-a-{os.getpid()}", first, free_port())
    there = environment(home / "b", f"dropr-b-{os.getpid()}", second, free_port())
    cookie = "droprbench"
    for one in (home / "a", home / "b"):
        (one / ".erlang.cookie").write_text(cookie)
        (one / ".erlang.cookie").chmod(0o600)
    command = [str(HOME / "rabbitmq-server")]
    with server(command, home / "a", first, **here), server(command, home / "b", second, **there):
        yield first, second


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """End to end by a shovel, for both kinds of durable queues; sending; latency."""
    with two_brokers(home / "rabbitmq") as (here, there):
        for kind in KINDS:
            queue = led_by_a_shovel(home / "rabbitmq", here, there, kind)
            command = f"shovel {queue}, ack-mode on-confirm, prefetch {IN_FLIGHT}; bench/peers/rabbitmq.py"
            mode = f"{kind} queue, persistent, {IN_FLIGHT} unconfirmed, shovel on-confirm, prefetch 1000, raw socket"
            rate, spread = repeated(runs, lambda: end_to_end(here, there, queue, messages))  # noqa: B023
            yield Figure("end to end", rate, True, mode, command, spread)
            times = latency(here, there, queue, 300)
            for name, share in (("latency p50", 0.5), ("latency p99", 0.99)):
                yield Figure(name, times[int(len(times) * share)] * 1000, True, mode, command)
        alone = Amqp(here)
        alone.declare("alone", x_queue_type="quorum")
        alone.confirm()

        def one_by_one() -> float:
            begun = time.perf_counter()
            for number in range(500):
                del number
                alone.publish_all("alone", BODY, 1, 1)
            return 500 / (time.perf_counter() - begun)

        rate, spread = repeated(runs, one_by_one)
        yield Figure("send", rate, True, "quorum queue, one confirm after the other", "bench/peers/rabbitmq.py", spread)
        alone.close()


@contextlib.contextmanager
def idle(home: Path) -> Iterator[dict[str, Latencies]]:
    """A system with nothing to do: for both kinds of queues what sends single messages through it."""
    with two_brokers(home / "idle") as (here, there):
        found: dict[str, Latencies] = {}
        for kind in KINDS:
            queue = led_by_a_shovel(home / "idle", here, there, kind)
            found[f"RabbitMQ, {kind}"] = lambda count, queue=queue: latency(here, there, queue, count)  # type: ignore[misc]
        yield found


def led_by_a_shovel(home: Path, here: int, there: int, kind: str) -> str:
    """A queue at both brokers and the shovel between them; its name."""
    queue = f"orders-{kind}"
    for port in (here, there):
        client = Amqp(port)
        client.declare(queue, x_queue_type=kind)
        client.close()
    shovel(home / "a", here, there, queue)
    return queue


def shovel(home: Path, here: int, there: int, queue: str) -> None:
    """Set a dynamic shovel at the first broker."""
    settings = {
        "src-protocol": "amqp091", "src-uri": f"amqp://127.0.0.1:{here}", "src-queue": queue,
        "src-prefetch-count": IN_FLIGHT, "ack-mode": "on-confirm",
        "dest-protocol": "amqp091", "dest-uri": f"amqp://127.0.0.1:{there}", "dest-queue": queue,
    }  # fmt: skip
    subprocess.run(
        [HOME / "rabbitmqctl", "-n", f"dropr-a-{os.getpid()}@localhost", "set_parameter", "shovel", queue,
         json.dumps(settings)],
        env={**os.environ, "HOME": str(home)}, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def end_to_end(here: int, there: int, queue: str, count: int) -> float:
    """Messages a second from the first publish to the last acknowledgement, in two processes."""
    spawn = multiprocessing.get_context("spawn")
    ready, begun = spawn.Event(), spawn.Value("d", 0.0)
    producer = spawn.Process(target=produce, args=(here, queue, count, ready, begun))
    producer.start()
    client = Amqp(there)
    client.consume(queue, IN_FLIGHT)
    ready.set()
    client.take(count)
    client.close()
    ended = time.monotonic()
    producer.join(120)
    return float(count / (ended - begun.value))


def produce(port: int, queue: str, count: int, ready: Event, begun: "Synchronized[float]") -> None:
    """Publish with many in flight."""
    client = Amqp(port)
    client.confirm()
    ready.wait(60)
    begun.value = time.monotonic()
    client.publish_all(queue, BODY, count, IN_FLIGHT)
    client.close()


def latency(here: int, there: int, queue: str, count: int) -> list[float]:
    """Seconds from a publish to the hands of the consumer behind the shovel, sorted."""
    sender, reader = Amqp(here), Amqp(there)
    sender.confirm()
    reader.consume(queue, 10)
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        sender.publish_all(queue, BODY, 1, 1)
        reader.take(1)
        times.append(time.perf_counter() - begun)
        time.sleep(0.005)
    sender.close()
    reader.close()
    return sorted(times)
