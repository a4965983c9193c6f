"""Every dialect that a gateway speaks, by a client that people have: how it puts, how it takes.

Owns one class for each, in `DIALECTS`; the Python API is among them. Must not know what is put, or on how many nodes.
Each takes and acknowledges, with its own words, exactly as many messages as it is asked for.
"""

import queue
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from support import clients
from support.gateways import Doors
from support.nodes import PATIENCE

SECONDS = int(PATIENCE)


class Dialect(ABC):
    """One client of one node. Messages that wait in its hands come back when it closes."""

    name = ""
    text = False
    """Whether its bodies are text; else they are any bytes."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors
        self.port = doors.port(self.name) if self.name in doors.urls else 0

    @abstractmethod
    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """Put them; each is on stable storage when it returns."""

    @abstractmethod
    def take(self, channel: str, count: int) -> list[bytes]:
        """Take so many, waiting for them, and acknowledge each."""

    def close(self) -> None:
        """End it; safe twice."""


class Python(Dialect):
    """The API of dropr."""

    name = "python"

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """`send` where the channel has a route, else `put`."""
        with self.doors.place.opened() as node:
            routed = node.config.channels[channel].to
            for body in bodies:
                if routed:
                    node.send(body, channel=channel)
                else:
                    node.put(body, channel=channel)

    def take(self, channel: str, count: int) -> list[bytes]:
        """`receive`."""
        with self.doors.place.opened() as node:
            return [received.body for received in node.receive(channel, limit=count, timeout=PATIENCE)]


class Memcache(Dialect):
    """pymemcache: `set`, and Kestrel's reliable reads."""

    name = "memcache"

    def __init__(self, doors: Doors) -> None:
        super().__init__(doors)
        base = clients.module("pymemcache.client.base")
        self._client = base.Client(("127.0.0.1", self.port), timeout=2 * PATIENCE)

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """`set`, with an answer."""
        for body in bodies:
            assert self._client.set(channel, body, noreply=False)

    def take(self, channel: str, count: int) -> list[bytes]:
        """`get channel/close/open`, and `/close` after the last."""
        got = [self._client.get(f"{channel}/close/open/t={SECONDS * 1000}") for _ in range(count)]
        assert self._client.get(f"{channel}/close") is None
        return got

    def close(self) -> None:
        """See above."""
        self._client.close()


class Beanstalk(Dialect):
    """greenstalk."""

    name = "beanstalk"

    def __init__(self, doors: Doors) -> None:
        super().__init__(doors)
        self._client = clients.module("greenstalk").Client(("127.0.0.1", self.port), encoding=None)

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """`use`, `put`."""
        self._client.use(channel)
        for body in bodies:
            self._client.put(body)

    def take(self, channel: str, count: int) -> list[bytes]:
        """`watch`, `reserve-with-timeout`, `delete`."""
        self._client.watch(channel)
        for other in self._client.watching():
            if other != channel:
                self._client.ignore(other)
        got = []
        for _ in range(count):
            job = self._client.reserve(timeout=SECONDS)
            self._client.delete(job)
            got.append(job.body)
        return got

    def close(self) -> None:
        """See above."""
        self._client.close()


class Stomp(Dialect):
    """stomp.py, STOMP 1.2."""

    name = "stomp"

    def __init__(self, doors: Doors) -> None:
        super().__init__(doors)
        stomp = clients.module("stomp")
        self._frames: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._connection = stomp.Connection12([("127.0.0.1", self.port)], auto_decode=False)
        frames = self._frames

        class Listener(stomp.ConnectionListener):  # type: ignore[misc, name-defined]
            def on_message(self, frame: Any) -> None:
                frames.put(("message", frame))

            def on_receipt(self, frame: Any) -> None:
                frames.put(("receipt", frame))

            def on_error(self, frame: Any) -> None:
                frames.put(("error", frame))

        self._connection.set_listener("", Listener())
        self._connection.connect(wait=True)
        self._receipts = 0
        self._kept: dict[str, list[Any]] = {}

    def _receipt(self) -> str:
        self._receipts += 1
        return f"r{self._receipts}"

    def _await(self, kind: str) -> Any:
        while not (kept := self._kept.setdefault(kind, [])):
            what, frame = self._frames.get(timeout=2 * PATIENCE)
            assert what != "error", frame
            self._kept.setdefault(what, []).append(frame)
        return kept.pop(0)

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """SEND with a receipt."""
        for body in bodies:
            self._connection.send(f"/queue/{channel}", body, receipt=self._receipt())
            self._await("receipt")

    def take(self, channel: str, count: int) -> list[bytes]:
        """SUBSCRIBE, ACK each by itself, UNSUBSCRIBE."""
        self._connection.subscribe(f"/queue/{channel}", id=channel, ack="client-individual")
        got = []
        for _ in range(count):
            frame = self._await("message")
            body = frame.body
            got.append(body if isinstance(body, bytes) else body.encode())
            self._connection.ack(frame.headers["ack"], receipt=self._receipt())
            self._await("receipt")
        self._connection.unsubscribe(id=channel, receipt=self._receipt())
        self._await("receipt")
        return got

    def close(self) -> None:
        """See above."""
        if self._connection.is_connected():
            self._connection.disconnect(self._receipt())


class Sqs(Dialect):
    """boto3."""

    name = "sqs"
    text = True

    def __init__(self, doors: Doors) -> None:
        super().__init__(doors)
        session = clients.module("boto3").session.Session()
        self._client = session.client(
            "sqs", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="eu-central-1",
            aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret",
        )  # fmt: skip

    def _url(self, channel: str) -> str:
        return str(self._client.create_queue(QueueName=channel)["QueueUrl"])

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """SendMessage."""
        url = self._url(channel)
        for body in bodies:
            self._client.send_message(QueueUrl=url, MessageBody=body.decode())

    def take(self, channel: str, count: int) -> list[bytes]:
        """ReceiveMessage with a long poll, DeleteMessage."""
        url, got = self._url(channel), list[bytes]()
        for _ in range(count + 2):
            if len(got) < count:
                answer = self._client.receive_message(QueueUrl=url, MaxNumberOfMessages=count, WaitTimeSeconds=20)
                for message in answer.get("Messages", ()):
                    got.append(message["Body"].encode())
                    self._client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return got

    def close(self) -> None:
        """See above."""
        self._client.close()


class Gearman(Dialect):
    """gear: background jobs."""

    name = "gearman"

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """SUBMIT_JOB_BG; it returns when the job is created."""
        with self._connected("Client") as client:
            for body in bodies:
                client.submitJob(clients.module("gear").Job(channel.encode(), body), background=True)

    def take(self, channel: str, count: int) -> list[bytes]:
        """CAN_DO, GRAB_JOB, WORK_COMPLETE."""
        got = []
        with self._connected("Worker") as worker:
            worker.registerFunction(channel)
            for _ in range(count):
                job = worker.getJob()
                got.append(bytes(job.arguments))
                job.sendWorkComplete(b"")
            worker.unRegisterFunction(channel)
            _settled(worker)
        return got

    @contextmanager
    def _connected(self, kind: str) -> Iterator[Any]:
        one = getattr(clients.module("gear"), kind)("matrix")
        one.addServer("127.0.0.1", self.port)
        try:
            one.waitForServer(PATIENCE)
            yield one
        finally:
            one.shutdown()


def _settled(worker: Any) -> None:
    """What was said before has been read when this is answered."""
    for connection in worker.active_connections:
        connection.sendAdminRequest(clients.module("gear").StatusAdminRequest(), timeout=2 * PATIENCE)


class Http(Dialect):
    """requests."""

    name = "http"

    def __init__(self, doors: Doors) -> None:
        super().__init__(doors)
        self._session = clients.module("requests").Session()
        self._url = f"http://127.0.0.1:{self.port}"

    def put(self, channel: str, bodies: Sequence[bytes]) -> None:
        """POST of a message."""
        for body in bodies:
            answer = self._session.post(f"{self._url}/channels/{channel}/messages", body, timeout=2 * PATIENCE)
            assert answer.status_code == 201, answer.text

    def take(self, channel: str, count: int) -> list[bytes]:
        """GET with a long poll, POST of the acknowledgement."""
        got = []
        for _ in range(count):
            url = f"{self._url}/channels/{channel}/messages?wait={SECONDS}"
            answer = self._session.get(url, timeout=2 * PATIENCE)
            assert answer.status_code == 200, answer.text
            got.append(answer.content)
            acked = self._session.post(f"{self._url}/leases/{answer.headers['dropr-handle']}/ack", timeout=2 * PATIENCE)
            assert acked.status_code == 204, acked.text
        return got

    def close(self) -> None:
        """See above."""
        self._session.close()


DIALECTS: dict[str, type[Dialect]] = {one.name: one for one in (Beanstalk, Memcache, Stomp, Sqs, Gearman, Http, Python)}

__all__ = ["DIALECTS", "Dialect"]
