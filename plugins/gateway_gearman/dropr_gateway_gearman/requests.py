"""A job as a client submits it, and as the desk takes it: data, priority, time, and what goes along in headers.

Owns `Request`, the names of the headers, and what makes two jobs one. Does no I/O.
"""

import hashlib
import time
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

import attrs

from dropr_core.contracts.gateway import Parcel
from dropr_core.errors import BadName
from dropr_gateway_gearman.naming import channel_of
from dropr_gateway_gearman.packets import Kind, Packet, encode

UNIQUE, REDUCER, WAITS = "x-gearman-unique", "x-gearman-reducer", "x-gearman-waits"
FAILED = "its Gearman worker said WORK_FAIL"
"""The reason of a job that failed without an exception."""
HIGH, LOW = 128, 1 << 28
"""Ranks: the first of priority 2 and of priority 7. Between them stands the channel's own priority, as a rule 5."""

MAX_UNIQUE = 64
_RANKS = {
    Kind.SUBMIT_JOB_HIGH: HIGH, Kind.SUBMIT_JOB_HIGH_BG: HIGH, Kind.SUBMIT_JOB_LOW: LOW, Kind.SUBMIT_JOB_LOW_BG: LOW
}  # fmt: skip
_FOREGROUND = frozenset({Kind.SUBMIT_JOB, Kind.SUBMIT_JOB_HIGH, Kind.SUBMIT_JOB_LOW, Kind.SUBMIT_REDUCE_JOB})
_REDUCE = frozenset({Kind.SUBMIT_REDUCE_JOB, Kind.SUBMIT_REDUCE_JOB_BACKGROUND})
SUBMITS = frozenset(
    {*_FOREGROUND, *_REDUCE, Kind.SUBMIT_JOB_BG, Kind.SUBMIT_JOB_HIGH_BG, Kind.SUBMIT_JOB_LOW_BG, Kind.SUBMIT_JOB_EPOCH}
)


class Refused(Exception):
    """A job is not taken; what the client is told."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.packet = encode(Kind.ERROR, code, text)


@attrs.frozen
class Request:
    """One job as a client submits it."""

    channel: str
    unique: bytes
    data: bytes
    foreground: bool
    rank: int | None
    delay: float | None
    reducer: bytes

    @property
    def key(self) -> bytes:
        """See `key_of`."""
        return key_of(self.unique, self.data)

    def parcel(self, dedup: str | None) -> Parcel:
        """As the desk takes it."""
        headers = {}
        if self.unique:
            headers[UNIQUE] = quote(self.unique)
        if self.reducer:
            headers[REDUCER] = quote(self.reducer)
        if self.foreground:
            headers[WAITS] = "1"
        return Parcel(
            channel=self.channel, body=self.data, rank=self.rank, delay=self.delay, headers=headers,
            dedup=dedup, receipt=self.foreground,
        )  # fmt: skip


def read_request(packet: Packet) -> Request:
    """Raises Refused."""
    function, unique, *rest = packet.arguments
    if len(unique) > MAX_UNIQUE:
        raise Refused("ARGUMENT_TOO_LARGE", "Unique value too large")
    try:
        channel = channel_of(function)
    except BadName as error:
        raise Refused("ARGUMENT_TOO_LARGE" if function else "INVALID_ARGUMENTS", str(error)) from None
    delay = None
    if packet.kind is Kind.SUBMIT_JOB_EPOCH:
        if not rest[0].strip().isdigit() or len(rest[0]) > 20:
            raise Refused("INVALID_ARGUMENTS", "the time of SUBMIT_JOB_EPOCH is a number of seconds since 1970")
        delay = max(0.0, int(rest[0]) - time.time())
    return Request(
        channel, unique, rest[-1], packet.kind in _FOREGROUND, _RANKS.get(packet.kind), delay or None,
        rest[0] if packet.kind in _REDUCE else b"",
    )  # fmt: skip


def unique_of(headers: Mapping[str, str]) -> bytes:
    """The unique that its client gave, as a worker gets it."""
    return unquote_to_bytes(headers.get(UNIQUE, ""))


def reducer_of(headers: Mapping[str, str]) -> bytes:
    """The function that reduces what comes out of it."""
    return unquote_to_bytes(headers.get(REDUCER, ""))


def key_of(unique: bytes, data: bytes) -> bytes:
    """What makes two jobs of a function one: their unique; where that is ``-`` their data; nothing: they never are."""
    if unique != b"-":
        return unique
    return b"-" + hashlib.blake2b(data, digest_size=16).digest() if data else b""


__all__ = ["FAILED", "HIGH", "LOW", "REDUCER", "SUBMITS", "UNIQUE", "WAITS", "Refused", "Request", "key_of",
           "read_request", "reducer_of", "unique_of"]  # fmt: skip
