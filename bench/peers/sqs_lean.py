"""SQS by a lean client: what the server behind a door can do, with as little as possible of the client in the figure.

Owns the client: AWS JSON over one socket, signed by SigV4 with a key that is derived once. It does what boto3 does
for `bench/peers/moto_sqs.py`, at a twentieth of boto3's cost. Must not know which server answers.
"""

import hashlib
import hmac
import json
import socket
import time
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from bench.peers.figure import BODY

REGION, SERVICE = "us-east-1", "sqs"


class LeanClient:
    """One queue, one connection (a new one where the server closes it)."""

    def __init__(self, url: str, key: str, secret: str) -> None:
        """Makes the queue. Raises OSError."""
        parts = urlsplit(url)
        self._host, self._key = parts.netloc, key
        self._place = parts.hostname or "", parts.port or 80
        self._socket: socket.socket | None = None
        self._answers: BinaryIO | None = None
        self._day = time.strftime("%Y%m%d", time.gmtime())
        signing = f"AWS4{secret}".encode()
        for part in (self._day, REGION, SERVICE, "aws4_request"):
            signing = _hmac(signing, part)
        self._signing = signing
        self._queue = self.call("CreateQueue", {"QueueName": "bench"})["QueueUrl"]

    def call(self, action: str, fields: dict[str, Any]) -> Any:
        """The answer to one action. Raises RuntimeError if it is refused."""
        body, target = json.dumps(fields).encode(), f"AmazonSQS.{action}"
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {
            "Content-Type": "application/x-amz-json-1.0", "Host": self._host, "X-Amz-Date": now, "X-Amz-Target": target,
        }  # fmt: skip
        names = ";".join(name.lower() for name in headers)
        lines = "".join(f"{name.lower()}:{text}\n" for name, text in headers.items())
        canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{self._day}/{REGION}/{SERVICE}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = _hmac(self._signing, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        head = "".join([f"{name}: {text}\r\n" for name, text in headers.items()])
        status, data = self._ask(f"POST / HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if status != b"200":
            raise RuntimeError(f"{action}: {status!r} {data[:200]!r}")
        return json.loads(data) if data else {}

    def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Status and body of the answer to a request."""
        if self._socket is None or self._answers is None:
            self._socket = socket.create_connection(self._place, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answers = self._socket.makefile("rb")
        self._socket.sendall(request)
        first, length, closes = self._answers.readline(), -1, False
        while (line := self._answers.readline().lower()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closes = b"close" in value
        version, status, *_ = first.split(None, 2)
        data = self._answers.read(length) if length >= 0 else self._answers.read()
        if closes or length < 0 or version == b"HTTP/1.0":
            self.close()
        return status, data

    def send(self, count: int) -> None:
        """One by one."""
        for _ in range(count):
            self.call("SendMessage", {"QueueUrl": self._queue, "MessageBody": BODY.decode()})

    def send_tens(self, count: int) -> None:
        """In batches of ten."""
        entries = [{"Id": str(number), "MessageBody": BODY.decode()} for number in range(10)]
        for _ in range(count // 10):
            self.call("SendMessageBatch", {"QueueUrl": self._queue, "Entries": entries})

    def take(self, count: int) -> None:
        """Receive and delete one by one."""
        for _ in range(count):
            (one,) = self._receive(1)
            self.call("DeleteMessage", {"QueueUrl": self._queue, "ReceiptHandle": one["ReceiptHandle"]})

    def take_tens(self, count: int) -> None:
        """The same in batches of up to ten."""
        left = count
        while left:
            got = self._receive(10)
            entries = [{"Id": str(number), "ReceiptHandle": one["ReceiptHandle"]} for number, one in enumerate(got)]
            self.call("DeleteMessageBatch", {"QueueUrl": self._queue, "Entries": entries})
            left -= len(got)

    def _receive(self, most: int) -> list[dict[str, Any]]:
        asked = {"QueueUrl": self._queue, "MaxNumberOfMessages": most, "WaitTimeSeconds": 5}
        return list(self.call("ReceiveMessage", asked)["Messages"])

    def close(self) -> None:
        """Close; safe twice."""
        for one in (self._answers, self._socket):
            if one is not None:
                one.close()
        self._socket = self._answers = None


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
