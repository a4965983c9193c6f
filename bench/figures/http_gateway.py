"""G-http: the HTTP gateway: posting one by one and over eight connections, receiving and acknowledging."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import yaml

from bench.figure import Figure, Run
from bench.figures.sending import raw_limit, raw_name
from bench.nodes import BODY, Process, has_role
from dropr_core.bench.samples import in_turns, rate_of

PIECE = 0.5
"""Seconds of one measurement."""
POST = "/channels/orders/messages"


@contextmanager
def door(run: Run, storage: str) -> Iterator[int]:
    """The port of a gateway process over a node of its own."""
    home = run.directory(f"http-{storage}")
    file = home / "node.yaml"
    file.write_text(yaml.safe_dump({
        "node": "shop", "data": "./data", "storage": storage, "limits": {"min_free": 0},
        "gateways": {"http": {"listen": "http://127.0.0.1:0"}},
    }))  # fmt: skip
    process = Process("gateway", has_role("gateway", file), home / "log")
    try:
        process.await_ready("listens on")
        report = json.loads((home / "data" / "run" / f"gateway-{process.pid}.json").read_text())
        yield int(report["urls"]["http"][0].rpartition(":")[2])
    finally:
        process.stop()


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """One request; its answer read to the end."""
        self._line.request(method, path, body)
        answer = self._line.getresponse()
        answer.read()
        return answer

    def post(self) -> int:
        """Send one message."""
        assert self.ask("POST", POST, BODY).status == 201
        return 1

    def take(self) -> int:
        """Receive one and acknowledge it."""
        answer = self.ask("GET", POST)
        if answer.status != 200:
            return 0
        assert self.ask("POST", f"/leases/{answer.headers['Dropr-Handle']}/ack").status == 204
        return 1

    def close(self) -> None:
        """Hang up."""
        self._line.close()


def together(port: int, count: int, step: Callable[[Client], int], seconds: float) -> float:
    """Messages a second of so many connections, each with a thread."""
    done, ends = list[int](), time.perf_counter() + seconds

    def work() -> None:
        client, mine = Client(port), 0
        while time.perf_counter() < ends:
            mine += step(client)
        client.close()
        done.append(mine)

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def measure(run: Run) -> None:
    piece = run.seconds(PIECE)
    for storage in run.storages:
        with raw_limit(run, storage) as raw_step, door(run, storage) as port:
            client = Client(port)
            base, one, eight = in_turns(
                [
                    lambda: rate_of(raw_step, piece),
                    lambda: rate_of(client.post, piece),  # noqa: B023
                    lambda: together(port, 8, Client.post, piece),
                ],
                run.rounds,
            )
            takes, eight_take = in_turns(
                [lambda: rate_of(client.take, piece), lambda: together(port, 8, Client.take, piece)],  # noqa: B023
                run.rounds,
            )
            client.close()
        run.read(f"{storage}, POST one by one", "/s", one, raw=base, raw_label=raw_name(storage))
        run.read(f"{storage}, POST, 8 connections", "/s", eight, raw=base, raw_label=raw_name(storage))
        run.read(f"{storage}, receive + ack", "/s", takes)
        run.read(f"{storage}, receive + ack, 8 connections", "/s", eight_take)


FIGURES = (
    Figure(
        "G-http", "http-gateway", "200 bytes over HTTP: POST one by one and over 8 connections, receive + ack",
        "none yet", "none yet",
        "A gateway process over a node of its own, http.client with a thread for each connection, all on this machine; "
        "the raw limit is one durable commit after the other.", measure, 60, only_if_named=True,
    ),
)  # fmt: skip
