"""The SQS door beside moto's server, by the same client.

Owns the comparison; the client and moto stand in `bench/peers/moto_sqs.py`. Must not know SQS.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.figure import Figure, Run, Skipped, at_least
from bench.nodes import Process, free_port, has_role, node_file
from bench.peers import moto_sqs
from bench.peers.servers import server
from dropr_core.bench.samples import Samples

WAYS = ("send", "take", "send 10", "take 10")


def measure(run: Run) -> None:
    """Ours durable, with signatures checked; theirs in memory; and a server that does nothing. In turns."""
    if why := moto_sqs.missing():
        raise Skipped(why)
    run.note(f"{moto_sqs.NAME}: {moto_sqs.version()}, in memory, signatures unchecked")
    messages = run.count(100, 10)
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        stack.enter_context(moto_sqs.running(run.directory("moto"), ports[0]))
        null = [sys.executable, "-m", "bench.peers.sqs_null", str(ports[1])]
        stack.enter_context(server(null, run.directory("null"), ports[1], PYTHONPATH=":".join(sys.path)))
        places = {name: f"http://127.0.0.1:{port}" for name, port in zip(("moto", "nothing"), ports, strict=True)}
        for storage in run.storages:
            with _door(run, storage) as url:
                _compare(run, storage, {"door": url, **places}, messages)


@contextmanager
def _door(run: Run, storage: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    gateways = {"sqs": {"listen": url, "credentials": {moto_sqs.KEY: moto_sqs.SECRET}}}
    file = node_file(run, storage, gateways=gateways)
    gateway = Process("gateway", has_role("gateway", file), file.parent / "gateway.log")
    try:
        gateway.await_ready("listens on")
        yield url
    finally:
        gateway.stop()


def _compare(run: Run, storage: str, places: dict[str, str], messages: int) -> None:
    for name, connect in moto_sqs.CLIENTS.items():
        clients = {whose: connect(url) for whose, url in places.items()}
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(run.rounds + 1):
            for suffix in ("", " 10"):
                for whose, client in clients.items():
                    rates = moto_sqs.there_and_back(client, messages, suffix)
                    for what, rate in zip((f"send{suffix}", f"take{suffix}"), rates, strict=True):
                        found.setdefault((whose, what), []).append(rate)
        for client in clients.values():
            client.close()
        for what in WAYS:
            ours, moto, most = (Samples(found[whose, what][1:]) for whose in places)
            label = f"{what}, {name}, {storage}"
            run.read(label, "/s", ours, raw=most, raw_label="at a server that does nothing /s")
            run.read(f"{label}: door ÷ moto's server", "×", ours.over(moto), at_least(5), raw=most.over(moto),
                     raw_label="most that this client can show ×")  # fmt: skip


FIGURES = (
    Figure("sqs", "sqs", "SQS door (durable) ÷ moto's server (in memory), the same clients", "≥ 5", "",
           "Send, and receive + delete, one by one and in tens; signatures are checked here, not there. Beside both, "
           "in the same rounds, a server that does nothing: its rate is all that a client can do, and its ratio to "
           "moto's the most that any server could reach with that client.",
           measure, 120, only_if_named=True),
)  # fmt: skip
