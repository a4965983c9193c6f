"""A server that answers what an SQS client asks for and does nothing: it keeps nothing, checks nothing, parses next to
nothing. What a client reaches here is what that client can do at all.

Owns the canned answers. ``python -m bench.peers.sqs_null PORT``. Must not know who asks.
"""

import asyncio
import hashlib
import json
import sys
from typing import Any, cast

from bench.peers.figure import BODY

_MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


def _message() -> dict[str, str]:
    return {"MessageId": "0" * 36, "ReceiptHandle": "h" * 60, "MD5OfBody": _MD5, "Body": BODY.decode()}


def _sent(number: int) -> dict[str, str]:
    return {"Id": str(number), "MessageId": "0" * 36, "MD5OfMessageBody": _MD5}


_TEN = range(10)
_ANSWERS: dict[bytes, Any] = {
    b"CreateQueue": {"QueueUrl": "http://127.0.0.1/000000000000/bench"},
    b"SendMessage": {"MessageId": "0" * 36, "MD5OfMessageBody": _MD5},
    b"SendMessageBatch": {"Successful": [_sent(number) for number in _TEN], "Failed": []},
    b"ReceiveMessage": {"Messages": [_message()]},
    b"Receive10": {"Messages": [_message() for _ in _TEN]},
    b"DeleteMessage": None,
    b"DeleteMessageBatch": {"Successful": [{"Id": str(number)} for number in _TEN], "Failed": []},
}


class Null(asyncio.Protocol):
    """One connection; a request is whole when as much is there as its head announces."""

    def __init__(self, whole: dict[bytes, bytes]) -> None:
        self._whole, self._data = whole, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It begins."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        lines = dict(line.lower().partition(b": ")[::2] for line in head.split(b"\r\n")[1:])
        if not found or len(body) < int(lines.get(b"content-length", b"0")):
            return
        action = next(name for name in self._whole if b"amazonsqs." + name.lower() == lines[b"x-amz-target"])
        ten = action == b"ReceiveMessage" and b'"MaxNumberOfMessages": 10' in body
        self._data = b""
        self._transport.write(self._whole[b"Receive10" if ten else action])


async def serve(port: int) -> None:
    """For ever."""
    whole = {}
    for action, answer in _ANSWERS.items():
        body = b"" if answer is None else json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
        whole[action] = head + body
    server = await asyncio.get_running_loop().create_server(lambda: Null(whole), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
