"""SQS by boto3, and by a lean client: what a program of Amazon's gets out of a door, and what stands behind it can do.

Owns moto's server as a peer (in memory, unsigned), and the client's side of the comparison. boto3's own work, about two
milliseconds a call, is in its figures; the lean client is there to see the server.
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.peers.figure import BODY, Figure, repeated
from bench.peers.servers import free_port, server
from bench.peers.sqs_lean import LeanClient

NAME = "moto's server"
KEY, SECRET = "AKIDBENCH", "a-secret-of-the-bench"


def missing() -> str:
    """Why it cannot be measured here."""
    lacking = [name for name in ("boto3", "moto", "flask_cors") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def version() -> str:
    """Of server and client."""
    return f"moto {metadata.version('moto')}, boto3 {metadata.version('boto3')}"


class Client:
    """boto3 at one queue."""

    def __init__(self, url: str) -> None:
        import boto3

        self._sqs: Any = boto3.client(
            "sqs", endpoint_url=url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )
        self._queue = self._sqs.create_queue(QueueName="bench")["QueueUrl"]

    def send(self, count: int) -> None:
        """One by one."""
        for _ in range(count):
            self._sqs.send_message(QueueUrl=self._queue, MessageBody=BODY.decode())

    def send_tens(self, count: int) -> None:
        """In batches of ten."""
        entries = [{"Id": str(number), "MessageBody": BODY.decode()} for number in range(10)]
        for _ in range(count // 10):
            self._sqs.send_message_batch(QueueUrl=self._queue, Entries=entries)

    def take(self, count: int) -> None:
        """Receive and delete one by one."""
        for _ in range(count):
            (one,) = self._sqs.receive_message(QueueUrl=self._queue, WaitTimeSeconds=5)["Messages"]
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=one["ReceiptHandle"])

    def take_tens(self, count: int) -> None:
        """The same in batches of up to ten."""
        left = count
        while left:
            got = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10, WaitTimeSeconds=5)["Messages"]
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(got)]
            self._sqs.delete_message_batch(QueueUrl=self._queue, Entries=entries)
            left -= len(got)

    def close(self) -> None:
        """Close."""
        self._sqs.close()


def clients(url: str) -> Iterator[tuple[str, "Client | LeanClient"]]:
    """Name and client, each open while it is used."""
    for name, client in (("boto3", Client(url)), ("lean client", LeanClient(url, KEY, SECRET))):
        yield name, client
        client.close()


def rates(client: "Client | LeanClient", messages: int, runs: int) -> Iterator[tuple[str, float, float]]:
    """What, messages a second, spread: sent and then taken, one by one and in tens."""
    count = max(10, messages // 10 * 10)
    for suffix, send, take in (("", client.send, client.take), (" 10", client.send_tens, client.take_tens)):
        taken: list[float] = []

        def once(send: Callable[[int], None] = send, take: Callable[[int], None] = take) -> float:
            began = time.perf_counter()
            send(count)
            middle = time.perf_counter()
            take(count)
            taken.append(count / (time.perf_counter() - middle))  # noqa: B023 - called within the round
            return count / (middle - began)

        rate, spread = repeated(runs, once)
        yield f"send{suffix}", rate, spread
        after = sorted(taken[1:])
        yield f"take{suffix}", after[len(after) // 2], (after[-1] - after[0]) / after[len(after) // 2]


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Send, and receive + delete, one by one and in tens."""
    port = free_port()
    words = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server([sys.executable, *words], home / "moto", port):
        for name, client in clients(f"http://127.0.0.1:{port}"):
            for what, rate, spread in rates(client, messages, runs):
                words_of = f"{name}, in memory, signatures unchecked"
                yield Figure(f"{what}, {name}", rate, False, words_of, " ".join(words), spread)
