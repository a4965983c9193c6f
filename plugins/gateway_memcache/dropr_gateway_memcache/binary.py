"""The binary protocol of memcached: packets of 24 bytes and what follows.

Owns its opcodes and answers. Does no I/O. memcached has given it up for the meta commands; libmemcached and PHP
speak it still, if they are told to.
"""

import struct
from collections.abc import Iterable
from typing import Literal, NamedTuple

from dropr_gateway_memcache.meaning import LOGIN_FIRST, NO_MEANING
from dropr_gateway_memcache.requests import (
    MAX_KEY,
    Answers,
    BadKey,
    Drop,
    Item,
    Login,
    Put,
    Request,
    Say,
    Stats,
    Take,
    queue_of,
    read_of,
)

REQUEST, RESPONSE = 0x80, 0x81
HEADER = struct.Struct(">BBHBBHIIQ")

GET, SET, DELETE, QUIT, NOOP, VERSION, STAT, VERBOSITY = 0x00, 0x01, 0x04, 0x07, 0x0A, 0x0B, 0x10, 0x1B
SASL_LIST, SASL_AUTH, SASL_STEP = 0x20, 0x21, 0x22
_QUIET = {
    0x09: GET, 0x0D: 0x0C, 0x11: SET, 0x12: 0x02, 0x13: 0x03, 0x14: DELETE, 0x15: 0x05, 0x16: 0x06, 0x17: QUIT,
    0x18: 0x08, 0x19: 0x0E, 0x1A: 0x0F, 0x1E: 0x1D, 0x24: 0x23,
}  # fmt: skip
"""Opcode without an answer (to a get: without one if nothing is found) → the same with one."""
_GETK = 0x0C
_NOT_HERE = {
    0x02: "add", 0x03: "replace", 0x05: "incr", 0x06: "decr", 0x08: "flush_all", 0x0E: "append", 0x0F: "prepend",
    0x1C: "touch", 0x1D: "gat", 0x23: "gat",
}  # fmt: skip

OK, NOT_FOUND, TOO_LARGE, INVALID, AUTH_ERROR, UNKNOWN, TEMPORARY = (
    0x00, 0x01, 0x03, 0x04, 0x20, 0x81, 0x86,
)  # fmt: skip


class Header(NamedTuple):
    """The first 24 bytes of a request."""

    magic: int
    opcode: int
    key: int
    extras: int
    data_type: int
    vbucket: int
    body: int
    opaque: int
    cas: int


class BinaryAnswers(Answers):
    """Answers to one packet."""

    def __init__(self, head: Header) -> None:
        self._opcode, self._opaque = head.opcode, head.opaque
        self._quiet = head.opcode in _QUIET
        self._keyed = _QUIET.get(head.opcode, head.opcode) == _GETK

    def packet(
        self, status: int = OK, body: bytes = b"", *, key: bytes = b"", extras: bytes = b"", cas: int = 0
    ) -> bytes:
        """One packet."""
        size = len(extras) + len(key) + len(body)
        head = HEADER.pack(RESPONSE, self._opcode, len(key), len(extras), 0, status, size, self._opaque, cas)
        return head + extras + key + body

    def stored(self, number: int) -> bytes:
        """The cas unique is the number of the message."""
        return b"" if self._quiet else self.packet(cas=number)

    def value(self, key: bytes, item: Item) -> bytes:
        """Flags are the extras."""
        extras = struct.pack(">I", item.flags)
        return self.packet(body=item.body, key=key if self._keyed else b"", extras=extras, cas=item.unique)

    def miss(self, key: bytes) -> bytes:
        """``Not found``, or nothing."""
        if self._quiet:
            return b""
        return self.packet(NOT_FOUND, key=key) if self._keyed else self.packet(NOT_FOUND, b"Not found")

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def deleted(self, *, found: bool) -> bytes:
        """Found or not."""
        if not found:
            return self.packet(NOT_FOUND, b"Not found")
        return b"" if self._quiet else self.packet()

    def stats(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """A packet for each, then an empty one."""
        packets = [self.packet(body=value.encode(), key=name.encode()) for name, value in pairs]
        return b"".join(packets) + self.packet()

    def done(self) -> bytes:
        """An empty packet."""
        return b"" if self._quiet else self.packet()

    def refused(self, whose: Literal["client", "server"], text: str) -> bytes:
        """The text is the body; a fault of the server is one that may pass."""
        words = " ".join(text.split()).encode("ascii", "backslashreplace")[:1000]
        return self.packet(INVALID if whose == "client" else TEMPORARY, words)


def head_of(data: bytes) -> Header | None:
    """The header in these 24 bytes; None if it is no request."""
    head = Header._make(HEADER.unpack(data))
    sound = head.magic == REQUEST and head.key + head.extras <= head.body and head.key <= MAX_KEY
    return head if sound else None


def parse(head: Header, packet: bytes, version: str) -> Request:
    """A whole packet: what follows the header."""
    extras, key, value = (
        packet[: head.extras],
        packet[head.extras : head.extras + head.key],
        packet[head.extras + head.key :],
    )
    answers, opcode = BinaryAnswers(head), _QUIET.get(head.opcode, head.opcode)
    if opcode in (GET, _GETK, SET, DELETE) and not key:
        return Say(answers.packet(INVALID, b"Invalid arguments"))
    if opcode in (GET, _GETK):
        try:
            return Take(answers, (read_of(key),))
        except BadKey as error:
            return Say(answers.refused("client", str(error)))
    if opcode == SET:
        if len(extras) != 8:
            return Say(answers.packet(INVALID, b"Invalid arguments"))
        if head.cas:
            return Say(answers.packet(INVALID, NO_MEANING["cas"].encode()))
        flags, exptime = struct.unpack(">Ii", extras)
        return Put(answers, queue_of(key), value, flags, exptime)
    if opcode == DELETE:
        return Drop(answers, queue_of(key))
    if opcode == STAT:
        return Say(answers.stats([("reset", "")])) if key == b"reset" else Stats(answers, queue_of(key))
    if opcode in _NOT_HERE:
        return Say(answers.packet(INVALID, NO_MEANING[_NOT_HERE[opcode]].encode()))
    if opcode == SASL_AUTH:
        return _login(answers, key, value)
    return _simple(answers, opcode, version)


def _simple(answers: BinaryAnswers, opcode: int, version: str) -> Request:
    if opcode == QUIT:
        return Say(answers.done(), hang_up=True)
    if opcode == VERSION:
        return Say(answers.packet(body=version.encode()))
    if opcode in (NOOP, VERBOSITY):
        return Say(answers.done())
    if opcode == SASL_LIST:
        return Say(answers.packet(body=b"PLAIN"))
    return Say(answers.packet(UNKNOWN, b"Unknown command"))


def _login(answers: BinaryAnswers, mechanism: bytes, value: bytes) -> Request:
    parts = value.split(b"\0")
    if mechanism != b"PLAIN" or len(parts) != 3:
        return Say(answers.packet(AUTH_ERROR, b"Auth failure."))
    user, password = (part.decode("utf-8", "surrogateescape") for part in parts[1:])
    return Login(answers, user, password)


def login_first(head: Header) -> bytes:
    """The answer to whoever has not said who it is."""
    return BinaryAnswers(head).packet(AUTH_ERROR, LOGIN_FIRST.encode())


def too_large(head: Header) -> bytes:
    """The answer to a value over the limit."""
    return BinaryAnswers(head).packet(TOO_LARGE, b"Too large.")


BEFORE_LOGIN = frozenset({SASL_LIST, SASL_AUTH, SASL_STEP, VERSION, QUIT, 0x17})
"""What may be asked before."""

__all__ = [
    "BEFORE_LOGIN",
    "HEADER",
    "REQUEST",
    "BinaryAnswers",
    "Header",
    "head_of",
    "login_first",
    "parse",
    "too_large",
]
