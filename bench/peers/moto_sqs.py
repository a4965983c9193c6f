"""SQS by boto3, and by a lean client: what a program of Amazon's gets out of a door, and what stands behind it can do.

Owns moto's server as a peer (in memory, unsigned), and the client's side of the comparison. boto3's own work, about two
milliseconds a call, is in its figures; the lean client is there to see the server.
"""

import contextlib
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


CLIENTS: dict[str, Callable[[str], "Client | LeanClient"]] = {
    "boto3": Client,
    "lean client": lambda url: LeanClient(url, KEY, SECRET),
}
"""Name → what connects to a server."""


def rates(client: "Client | LeanClient", messages: int, runs: int) -> Iterator[tuple[str, float, float]]:
    """What, messages a second, spread: sent and then taken, one by one and in tens."""
    for suffix in ("", " 10"):
        taken: list[float] = []

        def once(suffix: str = suffix) -> float:
            sent, received = there_and_back(client, messages, suffix)
            taken.append(received)  # noqa: B023 - called within the round
            return sent

        rate, spread = repeated(runs, once)
        yield f"send{suffix}", rate, spread
        after = sorted(taken[1:])
        yield f"take{suffix}", after[len(after) // 2], (after[-1] - after[0]) / after[len(after) // 2]


def there_and_back(client: "Client | LeanClient", messages: int, suffix: str) -> tuple[float, float]:
    """Messages a second, sent, and then received and deleted; ``suffix``: " 10" for batches of ten."""
    count = max(10, messages // 10 * 10)
    send, take = (client.send_tens, client.take_tens) if suffix else (client.send, client.take)
    began = time.perf_counter()
    send(count)
    middle = time.perf_counter()
    take(count)
    return count / (middle - began), count / (time.perf_counter() - middle)


@contextlib.contextmanager
def running(home: Path, port: int) -> Iterator[str]:
    """moto's server; what was run."""
    words = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server([sys.executable, *words], home, port):
        yield " ".join(words)


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Send, and receive + delete, one by one and in tens."""
    port = free_port()
    with running(home / "moto", port) as command:
        for name, connect in CLIENTS.items():
            client = connect(f"http://127.0.0.1:{port}")
            for what, rate, spread in rates(client, messages, runs):
                yield Figure(
                    f"{what}, {name}", rate, False, f"{name}, in memory, signatures unchecked", command, spread
                )
            client.close()
