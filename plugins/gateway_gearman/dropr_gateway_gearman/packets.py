"""Gearman's binary packets, and the parser of what a connection sends: packets and lines of text on one port.

Owns the numbers of the packets, how many arguments each has, and the limits that hold before anything is parsed. Knows
nothing of jobs, of dropr or of sockets. Source: PROTOCOL in the repository of gearmand.
"""

import enum
import struct
from collections.abc import Iterator

import attrs

HEADER = struct.Struct(">4sII")
"""Magic, number of the packet, bytes that follow."""
REQUEST, RESPONSE = b"\0REQ", b"\0RES"

MAX_LINE = 8192
"""Bytes of a line of text, its end included; gearmand's receive buffer."""
MAX_ARGUMENT = 1024
"""Bytes of an argument that is not the last one; names of functions have 512 at most, uniques 64, handles 64."""


class Kind(enum.IntEnum):
    """What a packet says. The numbers are Gearman's; 5 is not in use any more."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


_SHAPES = {
    0: (Kind.RESET_ABILITIES, Kind.PRE_SLEEP, Kind.NOOP, Kind.GRAB_JOB, Kind.NO_JOB, Kind.ALL_YOURS, Kind.GRAB_JOB_UNIQ,
        Kind.GRAB_JOB_ALL),
    1: (Kind.CAN_DO, Kind.CANT_DO, Kind.JOB_CREATED, Kind.WORK_FAIL, Kind.GET_STATUS, Kind.ECHO_REQ, Kind.ECHO_RES,
        Kind.SET_CLIENT_ID, Kind.OPTION_REQ, Kind.OPTION_RES, Kind.GET_STATUS_UNIQUE),
    2: (Kind.WORK_COMPLETE, Kind.WORK_EXCEPTION, Kind.WORK_DATA, Kind.WORK_WARNING, Kind.ERROR, Kind.CAN_DO_TIMEOUT),
    3: (Kind.SUBMIT_JOB, Kind.SUBMIT_JOB_BG, Kind.SUBMIT_JOB_HIGH, Kind.SUBMIT_JOB_HIGH_BG, Kind.SUBMIT_JOB_LOW,
        Kind.SUBMIT_JOB_LOW_BG, Kind.JOB_ASSIGN, Kind.WORK_STATUS),
    4: (Kind.SUBMIT_JOB_EPOCH, Kind.JOB_ASSIGN_UNIQ),
    5: (Kind.STATUS_RES, Kind.JOB_ASSIGN_ALL, Kind.SUBMIT_REDUCE_JOB, Kind.SUBMIT_REDUCE_JOB_BACKGROUND),
    6: (Kind.STATUS_RES_UNIQUE,),
    8: (Kind.SUBMIT_JOB_SCHED,),
}  # fmt: skip
ARGUMENTS = {kind: count for count, kinds in _SHAPES.items() for kind in kinds}
"""How many arguments a packet of each kind has; the last one takes all that is left, NUL bytes too."""


@attrs.frozen
class Packet:
    """One packet."""

    kind: Kind
    arguments: tuple[bytes, ...] = ()


@attrs.frozen
class TextLine:
    """One line of the admin protocol, without its end."""

    words: tuple[bytes, ...]


@attrs.frozen
class Unusable:
    """What cannot be read; nothing that follows can be trusted: answer and close the connection."""

    reason: str


Event = Packet | TextLine | Unusable


def encode(kind: Kind, *arguments: bytes | str, magic: bytes = RESPONSE) -> bytes:
    """The bytes of one packet. An argument that is not the last one must have no NUL byte."""
    # Listed, not given one by one: this is done for every packet.
    body = b"\0".join([one.encode() if isinstance(one, str) else one for one in arguments])
    return HEADER.pack(magic, kind, len(body)) + body


class Parser:
    """Bytes in, events out. Holds at most one packet that is not yet whole.

    ``max_packet``: most bytes that may follow a header; one that says more is refused before they arrive. ``magic``:
    that of the other side.
    """

    def __init__(self, max_packet: int, magic: bytes = REQUEST) -> None:
        self._max, self._magic = max_packet, magic
        self._buffer = bytearray()
        self._wanted = 1
        self._broken = False

    @property
    def waiting(self) -> int:
        """Bytes held of what is not yet whole."""
        return len(self._buffer)

    def receive(self, data: bytes) -> Iterator[Event]:
        """What is whole now, in order. After `Unusable` nothing comes any more, and nothing is kept."""
        if self._broken:
            return
        self._buffer += data
        if len(self._buffer) < self._wanted:
            return
        at = 0
        try:
            while (found := self._next(at)) is not None:
                event, at = found
                if isinstance(event, Unusable):
                    self._broken = True
                    at = len(self._buffer)
                    yield event
                    return
                if event is not None:
                    yield event
        finally:
            del self._buffer[:at]

    def _next(self, at: int) -> tuple[Event | None, int] | None:
        """The event that begins at a place and the place after it; None: it is not whole yet."""
        left = len(self._buffer) - at
        self._wanted = 1
        if not left:
            return None
        if self._buffer[at]:
            return self._line(at)
        if left < HEADER.size:
            begin = bytes(self._buffer[at : at + 4])
            if not self._magic.startswith(begin):
                return Unusable(f"{begin!r} is no beginning of a packet"), at
            self._wanted = HEADER.size
            return None
        magic, number, size = HEADER.unpack_from(self._buffer, at)
        if magic != self._magic:
            return Unusable(f"{magic!r} is no beginning of a packet"), at
        kind = _KINDS.get(number)
        if kind is None:
            return Unusable(f"there is no packet {number}"), at
        if size > self._max:
            return Unusable(f"{kind.name} of {size} bytes: {self._max} is the most"), at
        end = at + HEADER.size + size
        if len(self._buffer) < end:
            self._wanted = HEADER.size + size
            return None
        return self._packet(kind, bytes(self._buffer[at + HEADER.size : end])), end

    def _packet(self, kind: Kind, body: bytes) -> Event:
        wanted = ARGUMENTS[kind]
        if not wanted:
            return Packet(kind) if not body else Unusable(f"{kind.name} has no arguments, {len(body)} bytes came")
        arguments = tuple(body.split(b"\0", wanted - 1))
        if len(arguments) < wanted:
            if kind is Kind.CAN_DO_TIMEOUT or kind in (Kind.WORK_COMPLETE, Kind.WORK_DATA, Kind.WORK_WARNING):
                return Packet(kind, (*arguments, b""))  # libgearman leaves out the NUL before data that is empty
            return Unusable(f"{kind.name} has {wanted} arguments, {len(arguments)} came")
        if any([len(one) > MAX_ARGUMENT for one in arguments[:-1]]):  # noqa: C419 -- faster
            return Unusable(f"{kind.name}: an argument is longer than {MAX_ARGUMENT} bytes")
        return Packet(kind, arguments)

    def _line(self, at: int) -> tuple[Event | None, int] | None:
        end = self._buffer.find(b"\n", at, at + MAX_LINE)
        if end < 0:
            if len(self._buffer) - at >= MAX_LINE:
                return Unusable(f"a line is longer than {MAX_LINE} bytes"), at
            self._wanted = len(self._buffer) - at + 1
            return None
        return TextLine(tuple(bytes(self._buffer[at:end]).split())), end + 1


_KINDS = {int(kind): kind for kind in Kind}

__all__ = ["ARGUMENTS", "HEADER", "MAX_ARGUMENT", "MAX_LINE", "REQUEST", "RESPONSE", "Event", "Kind", "Packet",
           "Parser", "TextLine", "Unusable", "encode"]  # fmt: skip
