"""The text protocol of memcached: lines to requests, answers to lines.

Owns its grammar, but for the meta commands (`meta.py`). Does no I/O; `reader.py` cuts the bytes into lines
and data blocks.
"""

from collections.abc import Iterable
from typing import Literal

import attrs

from dropr_gateway_memcache.meaning import NO_MEANING
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
    Silent,
    Stats,
    Take,
    queue_of,
    read_of,
)

BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
LINE_TOO_LONG = b"CLIENT_ERROR line too long\r\n"
UNKNOWN = b"ERROR\r\n"

_SILENT = Silent()
_MOST = 1 << 31
"""A data block of so many bytes or more is refused as a badly formed line, as memcached does."""


class TextAnswers(Answers):
    """Answers in lines. ``unique``: the get was a gets."""

    def __init__(self, *, unique: bool = False) -> None:
        self._unique = unique

    def stored(self, number: int) -> bytes:  # noqa: ARG002 - other protocols tell it
        """``STORED``."""
        return b"STORED\r\n"

    def value(self, key: bytes, item: Item) -> bytes:
        """``VALUE key flags bytes [unique]`` and the data."""
        unique = b" %d" % item.unique if self._unique else b""
        return b"VALUE %s %d %d%s\r\n%s\r\n" % (key, item.flags, len(item.body), unique, item.body)

    def miss(self, key: bytes) -> bytes:  # noqa: ARG002
        """Nothing: a key that is not among the values was not there."""
        return b""

    def end(self) -> bytes:
        """``END``."""
        return b"END\r\n"

    def deleted(self, *, found: bool) -> bytes:
        """``DELETED`` or ``NOT_FOUND``."""
        return b"DELETED\r\n" if found else b"NOT_FOUND\r\n"

    def stats(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """A ``STAT`` for each, then ``END``."""
        return "".join(f"STAT {name} {value}\r\n" for name, value in pairs).encode() + b"END\r\n"

    def done(self) -> bytes:
        """``OK``."""
        return b"OK\r\n"

    def refused(self, whose: Literal["client", "server"], text: str) -> bytes:
        """``CLIENT_ERROR`` or ``SERVER_ERROR`` with one line of text."""
        line = " ".join(text.split()).encode("ascii", "backslashreplace")
        return (b"CLIENT_ERROR " if whose == "client" else b"SERVER_ERROR ") + line[:1000] + b"\r\n"


TEXT, TEXT_UNIQUE = TextAnswers(), TextAnswers(unique=True)


@attrs.frozen
class Block:
    """A line that is followed by a data block of ``size`` bytes: what it means is known when that is there."""

    size: int
    answers: Answers
    queue: str
    flags: int = 0
    exptime: int = 0
    refusal: bytes | None = None
    """The answer, if nothing is to be stored whatever the block holds."""
    plain: bool = False
    """Whether it is a `set`, which may carry user and password."""

    def whole(self, body: bytes) -> Request:
        """The request, with its data."""
        if self.refusal is not None:
            return Say(self.refusal)
        return Put(self.answers, self.queue, body, self.flags, self.exptime)


def login_of(block: Block, body: bytes) -> Request:
    """The first `set` of a connection whose users are known by name: ``user password``."""
    user, _, password = body.decode("utf-8", "surrogateescape").partition(" ")
    return Login(block.answers, user, password)


def number_of(word: bytes, *, signed: bool = False) -> int | None:
    """A decimal number of at most 20 digits; None if it is none."""
    digits = word[1:] if signed and word[:1] == b"-" else word
    return int(word) if digits.isdigit() and len(digits) <= 20 else None


def key_ok(key: bytes) -> bool:
    """Whether memcached would take it for a key."""
    return 0 < len(key) <= MAX_KEY


def parse(words: list[bytes], version: str) -> Request | Block:
    """One command line, its words. A command without a meaning here gets the answer that says so."""
    command = words[0]
    rest = words[1:]
    if command in (b"get", b"gets"):
        return _take(rest, TEXT_UNIQUE if command == b"gets" else TEXT)
    if command in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
        return _store(command, rest)
    if command == b"delete":
        return _drop(rest)
    if command == b"stats":
        return Say(b"RESET\r\n") if rest[:1] == [b"reset"] else Stats(TEXT, queue_of(b" ".join(rest)))
    if command == b"version":
        return Say(f"VERSION {version}\r\n".encode())
    if command == b"verbosity":
        return Say(b"" if rest[-1:] == [b"noreply"] else b"OK\r\n" if rest else UNKNOWN)
    if command == b"quit":
        return Say(b"", hang_up=True)
    why = NO_MEANING.get(command.decode("ascii", "replace"))
    if why:
        return Say(b"" if rest[-1:] == [b"noreply"] else TEXT.refused("client", why))
    return Say(UNKNOWN)


def _take(keys: list[bytes], answers: Answers) -> Request:
    if not keys:
        return Say(UNKNOWN)
    if not all(map(key_ok, keys)):
        return Say(BAD_FORMAT)
    try:
        return Take(answers, tuple(map(read_of, keys)))
    except BadKey as error:
        return Say(answers.refused("client", str(error)))


def _store(command: bytes, rest: list[bytes]) -> Request | Block:
    wanted = 5 if command == b"cas" else 4
    silent = rest[wanted:] == [b"noreply"]
    if len(rest) != wanted + silent:
        return Say(UNKNOWN)
    key, flags, exptime, size = rest[0], number_of(rest[1]), number_of(rest[2], signed=True), number_of(rest[3])
    if size is None or size >= _MOST:
        return Say(BAD_FORMAT)
    answers: Answers = _SILENT if silent else TEXT
    if not key_ok(key) or flags is None or flags >= 1 << 32 or exptime is None:
        return Block(size, answers, "", refusal=b"" if silent else BAD_FORMAT)
    if command != b"set":
        return Block(size, answers, "", refusal=answers.refused("client", NO_MEANING[command.decode()]))
    return Block(size, answers, queue_of(key), flags, exptime, plain=True)


def _drop(rest: list[bytes]) -> Request:
    silent = rest[-1:] == [b"noreply"] and len(rest) > 1
    keys = rest[:-1] if silent else rest
    if len(keys) == 2 and keys[1] == b"0":  # a time that clients of old send
        keys = keys[:1]
    if len(keys) != 1 or not key_ok(keys[0]):
        usage = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        return Say(UNKNOWN if not rest else b"" if silent else usage)
    return Drop(_SILENT if silent else TEXT, queue_of(keys[0]))


__all__ = ["BAD_CHUNK", "BAD_FORMAT", "LINE_TOO_LONG", "TEXT", "TOO_LARGE", "UNKNOWN", "Block", "TextAnswers", "key_ok",
           "login_of", "number_of", "parse"]  # fmt: skip
