"""The meta commands of memcached's text protocol: mg, ms, md, mn, me, ma.

Owns their flags and answers. Does no I/O.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Literal

from dropr_gateway_memcache.meaning import NO_MEANING
from dropr_gateway_memcache.requests import (
    Answers,
    BadKey,
    Drop,
    Item,
    Read,
    Request,
    Say,
    Stats,
    Take,
    queue_of,
    read_of,
)
from dropr_gateway_memcache.text import BAD_FORMAT, TEXT, UNKNOWN, Block, key_ok, number_of

BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
COMMANDS = frozenset({b"mg", b"ms", b"md", b"mn", b"me", b"ma"})
_LENGTH = 64
"""Most flags of one command."""
_MODES = {"E": "add", "A": "append", "P": "prepend", "R": "replace"}
_KNOWN = {b"mg": "bcfhklOqstvE", b"ms": "bcFkOqTMSI", b"md": "bkOqIxT"}
_NOT_HERE = {
    b"mg": {"N": "gat", "R": "gat", "T": "touch"},
    b"ms": {"C": "cas", "N": "append", "E": "cas"},
    b"md": {"C": "cas"},
}


class _Refused(Exception):
    """Why a command is not done: the line to answer."""


class MetaAnswers(Answers):
    """Answers ``HD``, ``VA``, ``EN``, with the flags that were asked for."""

    def __init__(self, flags: list[tuple[str, bytes]], key: bytes) -> None:
        self._flags, self._key = flags, key
        self._quiet = any(flag == "q" for flag, _ in flags)
        self._wants = any(flag == "v" for flag, _ in flags)
        self._encoded = any(flag == "b" for flag, _ in flags)

    def _echo(self) -> bytes:
        """Those flags that come back whatever happens."""
        return self._tail(asked="kO")

    def _tail(self, item: Item | None = None, number: int = 0, asked: str = "") -> bytes:
        words = []
        for flag, token in self._flags:
            if asked and flag not in asked:
                continue
            if flag == "k":  # followed by a word of its own if the key is in base64
                words.append(b"k" + self._key + (b" b" if self._encoded else b""))
            elif flag == "O":
                words.append(b"O" + token)
            elif flag == "c":
                words.append(b"c%d" % (item.unique if item else number))
            elif item is not None:
                words.append(self._fact(flag, item))
        return b"".join(b" " + word for word in words if word)

    def _fact(self, flag: str, item: Item) -> bytes:
        facts = {"f": b"f%d" % item.flags, "s": b"s%d" % len(item.body), "t": b"t-1", "h": b"h0", "l": b"l0"}
        return facts.get(flag, b"")

    def stored(self, number: int) -> bytes:
        """``HD``, or nothing if that shall be taken for granted."""
        return b"" if self._quiet else b"HD%s\r\n" % self._tail(number=number)

    def value(self, key: bytes, item: Item) -> bytes:  # noqa: ARG002 - the key comes back only if asked for
        """``VA`` with the data, or ``HD`` without."""
        if self._wants:
            return b"VA %d%s\r\n%s\r\n" % (len(item.body), self._tail(item), item.body)
        return b"HD%s\r\n" % self._tail(item)

    def miss(self, key: bytes) -> bytes:  # noqa: ARG002
        """``EN``."""
        return b"" if self._quiet else b"EN%s\r\n" % self._echo()

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def deleted(self, *, found: bool) -> bytes:
        """``HD`` or ``NF``."""
        if not found:
            return b"NF%s\r\n" % self._echo()
        return b"" if self._quiet else b"HD%s\r\n" % self._echo()

    def stats(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """``ME``: what `me` knows of a queue."""
        return b"ME %s %s\r\n" % (self._key, " ".join(f"{name}={value}" for name, value in pairs).encode())

    def done(self) -> bytes:
        """``HD``."""
        return b"HD\r\n"

    def refused(self, whose: Literal["client", "server"], text: str) -> bytes:
        """As in text."""
        return TEXT.refused(whose, text)


def parse(words: list[bytes]) -> Request | Block:
    """One line of a meta command, its words."""
    command, rest = words[0], words[1:]
    if command == b"mn":
        return Say(b"MN\r\n")
    if not rest:
        return Say(UNKNOWN)
    if not key_ok(rest[0]):
        return Say(BAD_FORMAT)
    key = rest[0]
    if command == b"ma":
        return Say(TEXT.refused("client", NO_MEANING["incr"]))
    if command == b"me":
        return Stats(MetaAnswers([], key), "me", queue_of(key))
    size = 0
    flags_from = 1
    if command == b"ms":
        found = number_of(rest[1]) if len(rest) > 1 else None
        if found is None or found >= 1 << 31:
            return Say(BAD_FORMAT)
        size, flags_from = found, 2
    try:
        flags = _flags(command, rest[flags_from:])
        answers = MetaAnswers(flags, key)
        name = _decoded(key, flags)
        if command == b"mg":
            return _get(name, flags, answers)
        if command == b"md":
            return Drop(answers, queue_of(name))
        return _set(name, size, dict(flags), answers)
    except (_Refused, BadKey) as error:
        line = error.args[0] if isinstance(error, _Refused) else TEXT.refused("client", str(error))
        return Block(size, TEXT, "", refusal=line) if command == b"ms" else Say(line)


def _flags(command: bytes, words: list[bytes]) -> list[tuple[str, bytes]]:
    if len(words) > _LENGTH:
        raise _Refused(b"CLIENT_ERROR too many flags\r\n")
    flags = [(chr(word[0]), word[1:]) for word in words]
    for flag, _token in flags:
        if flag in _NOT_HERE[command]:
            raise _Refused(TEXT.refused("client", NO_MEANING[_NOT_HERE[command][flag]]))
        if flag not in _KNOWN[command]:
            raise _Refused(b"CLIENT_ERROR invalid flag\r\n")
    if len({flag for flag, _ in flags}) != len(flags):
        raise _Refused(b"CLIENT_ERROR duplicate flag\r\n")
    return flags


def _decoded(key: bytes, flags: list[tuple[str, bytes]]) -> bytes:
    if not any(flag == "b" for flag, _ in flags):
        return key
    try:
        return base64.b64decode(key, validate=True)
    except binascii.Error:
        raise _Refused(b"CLIENT_ERROR error decoding key\r\n") from None


def _get(name: bytes, flags: list[tuple[str, bytes]], answers: MetaAnswers) -> Request:
    """Without ``v`` nobody sees the message, so it is not taken: the question is whether there is one."""
    read = read_of(name)
    if not any(flag == "v" for flag, _ in flags):
        read = Read(read.key, read.queue, peek=True)
    return Take(answers, (read,))


def _set(name: bytes, size: int, flags: dict[str, bytes], answers: MetaAnswers) -> Block:
    client_flags = number_of(flags.get("F", b"0"))
    exptime = number_of(flags.get("T", b"0"), signed=True)
    if client_flags is None or client_flags >= 1 << 32 or exptime is None:
        raise _Refused(BAD_TOKEN)
    mode = flags.get("M", b"S").decode("ascii", "replace").upper()[:1]
    if mode in _MODES:
        raise _Refused(TEXT.refused("client", NO_MEANING[_MODES[mode]]))
    if mode != "S":
        raise _Refused(b"CLIENT_ERROR invalid mode for ms M token\r\n")
    return Block(size, answers, queue_of(name), client_flags, exptime)


__all__ = ["BAD_TOKEN", "COMMANDS", "MetaAnswers", "parse"]
