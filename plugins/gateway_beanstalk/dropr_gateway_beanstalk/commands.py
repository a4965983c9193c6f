"""The commands of beanstalkd's protocol, and how their lines are read.

Owns one tuple for each command, and `read_line`. Pure: knows no sockets and nothing of dropr. What is malformed becomes
a `Refused` with the answer that beanstalkd gives to it, so that whoever carries out commands answers them in their
order without looking at their text.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

MAX_LINE = 224
"""Bytes of the longest command line, with its CR and LF."""
MAX_TUBE = 200
"""Bytes of the longest name of a tube."""
MAX_U32 = (1 << 32) - 1
MAX_U64 = (1 << 64) - 1
MAX_JOB = 65_535
"""Bytes of the largest job, if nobody says otherwise: that of beanstalkd."""

BAD_FORMAT = b"BAD_FORMAT\r\n"
UNKNOWN_COMMAND = b"UNKNOWN_COMMAND\r\n"
EXPECTED_CRLF = b"EXPECTED_CRLF\r\n"
JOB_TOO_BIG = b"JOB_TOO_BIG\r\n"


class Put(NamedTuple):
    """A job for the tube in use. Seconds are whole; ``ttr`` is at least 1."""

    priority: int
    delay: int
    ttr: int
    body: bytes


class Use(NamedTuple):
    """Put into this tube from now on."""

    tube: str


class Reserve(NamedTuple):
    """Wait for a job of the watched tubes, at most so many seconds (None: for ever)."""

    seconds: int | None = None
    timed: bool = False
    """Whether it came as ``reserve-with-timeout``."""


class ReserveJob(NamedTuple):
    """Take this job."""

    id: int


class Delete(NamedTuple):
    """The job is done, or shall never be done."""

    id: int


class Release(NamedTuple):
    """Back into the queue."""

    id: int
    priority: int
    delay: int


class Bury(NamedTuple):
    """Aside, until somebody kicks it."""

    id: int
    priority: int


class Touch(NamedTuple):
    """Begin its time to run anew."""

    id: int


class Watch(NamedTuple):
    """Reserve from this tube, too."""

    tube: str


class Ignore(NamedTuple):
    """Do not reserve from this tube any more."""

    tube: str


class Peek(NamedTuple):
    """Show this job."""

    id: int


class PeekState(NamedTuple):
    """Show the next job of the tube in use that is ``ready``, ``delayed`` or ``buried``."""

    state: str


class Kick(NamedTuple):
    """Make so many buried jobs of the tube in use ready, or delayed ones."""

    bound: int


class KickJob(NamedTuple):
    """Make this buried or delayed job ready."""

    id: int


class PauseTube(NamedTuple):
    """Nobody gets a job of this tube for so many seconds."""

    tube: str
    delay: int


class StatsJob(NamedTuple):
    """Tell of this job."""

    id: int


class StatsTube(NamedTuple):
    """Tell of this tube."""

    tube: str


class Plain(NamedTuple):
    """A command without arguments: ``stats``, ``list-tubes``, ``list-tube-used``, ``list-tubes-watched``, ``quit``."""

    name: str


class Refused(NamedTuple):
    """Something malformed, and what to answer. ``name``: of the command, where it counts as one all the same."""

    reply: bytes
    name: str = ""


Command: TypeAlias = (
    Put | Use | Reserve | ReserveJob | Delete | Release | Bury | Touch | Watch | Ignore | Peek | PeekState | Kick
    | KickJob | PauseTube | StatsJob | StatsTube | Plain | Refused
)  # fmt: skip


# ── one line ─────────────────────────────────────────────────────────────────────────────────────

_ID = re.compile(rb" *([0-9]+)")
_RELEASE = re.compile(rb" *([0-9]+) +([0-9]+) +([0-9]+)")
_BURY = re.compile(rb" *([0-9]+) +([0-9]+)")
_SECONDS = re.compile(rb" *(-?[0-9]+)(.*)", re.DOTALL)
_KICK = re.compile(rb"[ \t\v\f]*([+-]?[0-9]+).*", re.DOTALL)
_PAUSE = re.compile(rb" *([^ ]+) +([0-9]+)")
_TUBE = re.compile(rb"[A-Za-z0-9+/;.$_()][A-Za-z0-9+/;.$_()-]{0,%d}" % (MAX_TUBE - 1))

Reader: TypeAlias = Callable[[bytes], Command | None]
"""Reads what stands behind the word of a command; None if it is malformed."""


def is_tube(name: bytes | str) -> bool:
    """Whether a tube may have this name."""
    return _TUBE.fullmatch(name.encode("utf-8", "replace") if isinstance(name, str) else name) is not None


def _numbers(pattern: re.Pattern[bytes], text: bytes, *most: int) -> list[int] | None:
    found = pattern.fullmatch(text)
    if found is None:
        return None
    values = [int(one) for one in found.groups()]
    return values if all(value <= limit for value, limit in zip(values, most, strict=True)) else None


def _by_id(kind: Callable[[int], Command]) -> Reader:
    def read(text: bytes) -> Command | None:
        if text.isdigit() and len(text) < 20:  # as most often
            return kind(int(text))
        values = _numbers(_ID, text, MAX_U64)
        return kind(values[0]) if values else None

    return read


def _by_tube(kind: Callable[[str], Command]) -> Reader:
    return lambda text: kind(text.decode()) if is_tube(text) else None


def _constant(command: Command) -> Reader:
    return lambda text: None if text else command


def _quit(_text: bytes) -> Command | None:
    return Plain("quit")


def _release(text: bytes) -> Command | None:
    values = _numbers(_RELEASE, text, MAX_U64, MAX_U32, MAX_U32)
    return Release(*values) if values else None


def _bury(text: bytes) -> Command | None:
    values = _numbers(_BURY, text, MAX_U64, MAX_U32)
    return Bury(*values) if values else None


def _timeout(text: bytes) -> Command | None:
    """As beanstalkd 1.12, any negative number is for ever, and what follows is not looked at."""
    found = _SECONDS.fullmatch(text)
    seconds = int(found[1]) if found else MAX_U64
    return Reserve(None if seconds < 0 else seconds, timed=True) if seconds < 1 << 31 else None


def _kick(text: bytes) -> Command | None:
    """By strtoul: a sign is taken, what follows is not looked at, and it wraps around."""
    found = _KICK.fullmatch(text)
    bound = int(found[1]) if found else MAX_U64 + 1
    return Kick(bound & MAX_U32) if abs(bound) <= MAX_U64 else None


def _pause(text: bytes) -> Command | None:
    found = _PAUSE.fullmatch(text)
    if found is None or not is_tube(found[1]) or int(found[2]) > MAX_U32:
        return None
    return PauseTube(found[1].decode(), int(found[2]))


_READERS: Mapping[bytes, Reader] = MappingProxyType(
    {
        b"peek ": _by_id(Peek),
        b"peek-ready": _constant(PeekState("ready")),
        b"peek-delayed": _constant(PeekState("delayed")),
        b"peek-buried": _constant(PeekState("buried")),
        b"reserve-with-timeout ": _timeout,
        b"reserve-job ": _by_id(ReserveJob),
        b"reserve": _constant(Reserve()),
        b"delete ": _by_id(Delete),
        b"release ": _release,
        b"bury ": _bury,
        b"kick ": _kick,
        b"kick-job ": _by_id(KickJob),
        b"touch ": _by_id(Touch),
        b"stats-job ": _by_id(StatsJob),
        b"stats-tube ": _by_tube(StatsTube),
        b"stats": _constant(Plain("stats")),
        b"use ": _by_tube(Use),
        b"watch ": _by_tube(Watch),
        b"ignore ": _by_tube(Ignore),
        b"list-tubes-watched": _constant(Plain("list-tubes-watched")),
        b"list-tube-used": _constant(Plain("list-tube-used")),
        b"list-tubes": _constant(Plain("list-tubes")),
        b"quit": _quit,
        b"pause-tube": _pause,
    }
)
"""By the beginnings of lines, as beanstalkd compares them, in its order: the first that fits decides."""


def read_line(line: bytes) -> Command:
    """The command of a line without its CR and LF; `put` has more to it and is read by the parser."""
    if b"\0" in line:
        return Refused(BAD_FORMAT)
    word, space, rest = line.partition(b" ")
    reader = _READERS.get(word + space)
    if reader is None:
        reader, rest = _by_beginning(line)
        if reader is None:
            return Refused(BAD_FORMAT if line.startswith(b"put ") else UNKNOWN_COMMAND)
    return reader(rest) or Refused(BAD_FORMAT)


def _by_beginning(line: bytes) -> tuple[Reader | None, bytes]:
    for beginning, reader in _READERS.items():
        if line.startswith(beginning):
            return reader, line[len(beginning) :]
    return None, b""
