"""The messages of this transport, version 1: a head of 18 bytes and a payload (docs/transports/zmq.md).

Owns kinds, head and limits. Pure: must not know sockets or what a request means.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
_HEAD = struct.Struct(">BBQQ")
HEAD_BYTES = _HEAD.size

CHUNK = 64 * 1024
"""Most bytes of a payload."""
LEAST = 4096
"""Fewest bytes of a payload that is not the last: who sends crumbs would make us keep a million of them."""
MAX_FRAME = CHUNK + 4096
"""ZeroMQ hangs up on whoever sends a longer frame."""
FIRST_WINDOW = 256 * 1024
"""Bytes of a request or an answer that may be sent before the other side has granted more, or said `OPENING`."""
WINDOW = 4 * 1024 * 1024
"""Most bytes that a receiver grants beyond what it has."""


OPENING = 0
"""The request id of a GRANT that is about all later requests of the connection: what they may begin with."""


class Kind(IntEnum):
    """What a message says. ``number`` means another thing in each."""

    ASK = 1
    """A request begins; number: its whole length."""
    MORE = 2
    """A request or answer goes on; number: the offset."""
    GRANT = 3
    """Send on; number: up to which offset."""
    CANCEL = 4
    """The asker gave this request up."""
    ANSWER = 5
    """An answer begins; number: its whole length."""
    REFUSED = 6
    """The listener refuses the request; payload: code, a zero byte, text in UTF-8."""
    FAILED = 7
    """It is not known what became of the request; payload: text."""
    CLOSING = 8
    """The listener closes and has not taken the request."""
    TAKEN = 9
    """The asker has the whole of an answer that is longer than one piece. Listeners before 0.2 ignore it."""


class Head(NamedTuple):
    """The first part of each message."""

    kind: int
    request: int
    """Number of the request, unique on its connection, chosen by the asker."""
    number: int


class OtherVersion(Exception):
    """A head that another version of this protocol wrote."""


def pack(kind: int, request: int, number: int = 0) -> bytes:
    """A head as bytes."""
    return _HEAD.pack(VERSION, kind, request, number)


def unpack(data: bytes | memoryview) -> Head | None:
    """A head from bytes; None if it is none. Raises OtherVersion."""
    if len(data) < 2:
        return None
    if data[0] != VERSION:
        raise OtherVersion
    if len(data) != HEAD_BYTES:
        return None
    _version, kind, request, number = _HEAD.unpack(data)
    return Head(kind, request, number)


def refusal(code: str, text: str) -> bytes:
    """The payload of a refusal."""
    return code.encode()[:100] + b"\0" + text[:1000].encode()


def read_refusal(payload: bytes) -> tuple[str, str]:
    """Code and text of a refusal, made harmless."""
    code, _, text = payload[:8192].partition(b"\0")
    return printable(code, 100) or "refused", printable(text, 1000) or "without a reason"


def printable(data: bytes, limit: int) -> str:
    """One line of at most ``limit`` harmless characters."""
    text = " ".join(data.decode("utf-8", "replace").split())
    return (text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text))[:limit]
