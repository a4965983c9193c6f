"""Names and identities: the one pattern for names, message ids, lanes.

Owns what may be called what. Must not know where names are stored or sent: no name ever becomes
a path as it stands.
"""

import bisect
import hashlib
import itertools
import os
import re
import struct
import time
import uuid
import weakref
from collections.abc import Callable
from typing import NamedTuple, NewType

from dropr_core.errors import BadName, UsageError
from dropr_core.model.limits import MAX_CHANNEL, shorten, to_utf8

MessageId = NewType("MessageId", bytes)
"""16 bytes, a UUID. Ids made here are version 7 (RFC 9562): they sort by the time they were made."""

StoreId = NewType("StoreId", bytes)
"""8 random bytes, made when a half of a store is created, and anew when a roll-back is detected."""

NO_MESSAGE = MessageId(bytes(16))
"""The id before the first position of a lane."""

LOWEST_PRIORITY = 9
DEFAULT_PRIORITY = 5
LAST_RANK = (1 << 32) - 1
"""A rank is a whole number from 0 (first) to this one: the order of messages within their priority."""
_FIRST_RANKS = (0, 16, 128, 512, 1024, 1 << 16, 1 << 20, 1 << 28, 1 << 31, 3 << 30)
"""Priority → its first rank, which messages without one have. The steps are fine where small numbers are used by hand
(beanstalkd calls those below 1,024 urgent); and what client libraries give by default (0, 1,024, 2^16, 2^31) is the
first of a priority, where it costs a storage nothing."""
NOT_URGENT = 4
"""The first priority that is not urgent, as beanstalkd means it: the one whose first rank is 1,024."""
DEFAULT_CHANNEL = "common"

_LETTERS = re.compile(rf"[A-Za-z0-9._/-]{{1,{MAX_CHANNEL}}}")
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+"
_CHANNEL = re.compile(rf"(?=.{{1,{MAX_CHANNEL}}}\Z){_SEGMENT}(?:/{_SEGMENT})*")
_WILD_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[][A-Za-z0-9._*?!-]+"
_PATTERN = re.compile(rf"(?=.{{1,{MAX_CHANNEL}}}\Z){_WILD_SEGMENT}(?:/{_WILD_SEGMENT})*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


_HALVES = struct.Struct(">QQ")
_VARIANT = 0b10 << 62
RUN_BYTE = 0x8C
"""The seventh byte of every id of a run: a quick look that tells most others."""
_RUN_MARK = RUN_BYTE << 8 | 0xD0
"""Version 8, and "a run of a schedule"."""


RUNS_REMEMBERED = 86400.0
"""Seconds for which a run of a schedule is known at its receiver after it was handled."""


class Lane(NamedTuple):
    """The ordered log of deliveries to one peer on one channel with one priority (sender's view)."""

    peer: str
    channel: str
    priority: int
    """That of its messages, 0 to 9; 10 to 19 in the lanes of messages whose body travels beside them (`large`), so that
    nothing small waits for a large body."""

    @property
    def large(self) -> bool:
        """Whether its messages have large bodies."""
        return self.priority > LOWEST_PRIORITY

    def __str__(self) -> str:
        return f"{self.peer}:{self.channel}:{self.priority}"


class SourceLane(NamedTuple):
    """The same lane as its receiver knows it."""

    sender: str
    store: StoreId
    channel: str
    priority: int

    @property
    def large(self) -> bool:
        """Whether its messages have large bodies."""
        return self.priority > LOWEST_PRIORITY

    def __str__(self) -> str:
        return f"{self.sender}({self.store.hex()}):{self.channel}:{self.priority}"


class Head(NamedTuple):
    """A position in a lane: the sequence number and the id of the message that stands there."""

    sequence: int
    id: MessageId

    def __str__(self) -> str:
        return f"{self.sequence}/{format_id(self.id)}"


START = Head(0, NO_MESSAGE)
"""The position before the first message of every lane."""


def is_channel(name: str) -> bool:
    """Whether a channel may have this name."""
    return _CHANNEL.fullmatch(name) is not None


def check_channel(name: object) -> str:
    """Return ``name`` if it may name a channel, else raise BadName.

    1 to 200 of ``A-Z a-z 0-9 . _ -`` in segments with ``/`` between them; none is empty, ``.`` or ``..``, so that no
    pattern of channels (``eve/*``) means one place to who wrote it and another to who reads the name as a path.
    """
    if not isinstance(name, str) or not is_channel(name):
        raise BadName(
            f"channel {shorten(name)}: a channel is 1 to {MAX_CHANNEL} characters of A-Z a-z 0-9 . _ - "
            "in segments with / between them, none of them empty, . or .."
        )
    return name


def check_stored_channel(name: object) -> str:
    """Return ``name`` if a store may hold a channel of that name, else raise BadName.

    For those who look at what is there, take it out or wipe it: older versions took segments that are empty, ``.`` or
    ``..``, and what they stored must drain (docs/decisions/0018).
    """
    if not isinstance(name, str) or not _LETTERS.fullmatch(name):
        return check_channel(name)
    return name


def check_pattern(pattern: object) -> str:
    """Return ``pattern`` if it may stand for channels: a name of one with ``*``, ``?`` and ``[...]``; else BadName."""
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        raise BadName(
            f"pattern {shorten(pattern)}: write a channel's name, where * ? and [abc] are wild cards; "
            "no segment of it is empty, . or .."
        )
    return pattern


def check_name(name: object, what: str = "name") -> str:
    """Return ``name`` if it may name a node, peer, group or plugin instance, else raise BadName."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadName(
            f"{what} {shorten(name)}: use 1 to 64 characters of A-Z a-z 0-9 . _ - beginning with a letter or digit"
        )
    return name


def check_priority(priority: object) -> int:
    """Return ``priority`` if it is a whole number from 0 (first) to 9 (last), else raise UsageError."""
    if type(priority) is not int or not 0 <= priority <= LOWEST_PRIORITY:
        raise UsageError(f"priority {shorten(priority)}: use a whole number from 0 (first) to 9 (last)")
    return priority


def priority_of_rank(rank: int) -> int:
    """The priority whose messages a rank stands among. It rises with the rank, so that the order by priority and rank
    is the order by rank, while lanes stay ten.
    """
    return bisect.bisect_right(_FIRST_RANKS, rank) - 1


def first_rank(priority: int) -> int:
    """The first rank of a priority: that of every message about which nothing else was said."""
    return _FIRST_RANKS[priority]


def check_rank(rank: object) -> int:
    """Return ``rank`` if it is a whole number of 32 bits, else raise UsageError."""
    if type(rank) is not int or not 0 <= rank <= LAST_RANK:
        raise UsageError(f"rank {shorten(rank)}: use a whole number from 0 (first) to {LAST_RANK} (last)")
    return rank


def check_lane_priority(priority: int) -> int:
    """Return ``priority`` if a lane may have it (see `Lane.priority`), else raise UsageError."""
    if not 0 <= priority <= 2 * LOWEST_PRIORITY + 1:
        raise UsageError(f"priority {priority} of a lane: 0 to 9, and 10 to 19 for large bodies")
    return priority


def lane_priority(priority: int, *, large: bool) -> int:
    """The priority that a lane has for messages of ``priority``, with large bodies or without."""
    return priority + LOWEST_PRIORITY + 1 if large else priority


def priority_of(lane_priority: int) -> int:
    """The priority that the messages of a lane have."""
    return lane_priority % (LOWEST_PRIORITY + 1)


def format_id(message_id: MessageId | bytes) -> str:
    """The id as people and logs see it: a UUID in its usual form."""
    h = message_id.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def parse_id(value: object) -> MessageId:
    """Accept a UUID, its text or its 16 bytes; raise UsageError for anything else."""
    if isinstance(value, uuid.UUID):
        return MessageId(value.bytes)
    if isinstance(value, bytes) and len(value) == 16:
        return MessageId(value)
    if isinstance(value, str):
        try:
            return MessageId(uuid.UUID(value).bytes)
        except ValueError:
            pass
    raise UsageError(f"id {shorten(value)}: use a UUID (text, uuid.UUID or 16 bytes); for other keys use dedup_key=")


def id_of_key(sender: str, channel: str, key: str) -> MessageId:
    """The id that a caller's ``dedup_key`` stands for: a version 8 UUID over sender, channel and key."""
    if not isinstance(key, str):
        raise UsageError(f"dedup_key: {shorten(key)} is no text")
    data = b"\0".join((sender.encode(), channel.encode(), to_utf8(key, "dedup_key")))
    digest = bytearray(hashlib.blake2b(data, digest_size=16).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return MessageId(bytes(digest))


def id_of_run(schedule: str, channel: str, due: int) -> MessageId:
    """The id of what a schedule sends at a due time (milliseconds since the epoch), the same on every node that knows
    the schedule: a version 8 UUID that begins with the time, as those of version 7 do, and marks itself.
    """
    digest = hashlib.blake2b(f"{schedule}\0{channel}".encode(), digest_size=8).digest()
    head = (due & (1 << 48) - 1) << 16 | _RUN_MARK
    return MessageId(_HALVES.pack(head, int.from_bytes(digest, "big") & (1 << 62) - 1 | _VARIANT))


def is_of_run(identity: bytes) -> bool:
    """Whether it may be one of `id_of_run`."""
    return identity[6] == RUN_BYTE and identity[7] == 0xD0


def keep_of(identity: bytes, retention: float) -> float:
    """Seconds for which a handled message is kept: that of its channel; of a run of a schedule a day at least, to know
    the same one when another node sends it late.
    """
    return max(retention, RUNS_REMEMBERED) if is_of_run(identity) else retention


def due_of_run(identity: bytes) -> int:
    """The due time in an id of `id_of_run`."""
    return int.from_bytes(identity[:6], "big")


def is_of_key(identity: MessageId) -> bool:
    """Whether it may be one of `id_of_key`: a version 8 UUID."""
    return identity[6] >> 4 == 8


def make_store_id() -> StoreId:
    """64 random bits."""
    return StoreId(os.urandom(8))


class IdMaker:
    """Makes version 7 UUIDs that rise within the process even when the wall clock steps back.

    RFC 9562 section 6.2, method 1: the second half counts upwards from a random start (61 random bits,
    so that it never runs over), the 12 bits beside the version are random. Safe to call from many threads.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._high = 0
        """The first half of the last id: milliseconds, version, random bits."""
        self.begin_anew()
        _makers.add(self)

    def begin_anew(self) -> None:
        """Count from another random start: a forked child must not count where its parent counts."""
        number = int.from_bytes(os.urandom(10), "big")
        self._version = 0x7000 | number >> 68
        self._high = self._high >> 16 << 16 | self._version
        self._count = itertools.count(_VARIANT | number & (2**61 - 1))

    def __call__(self, wall: float | None = None) -> MessageId:
        """The next id. ``wall``: the wall time, if the caller has asked for it just now."""
        # One step of a counter cannot be torn by another thread. Two threads that read the clock at
        # once may get ids in either order, which is all that "at once" can mean.
        ms = int((self._wall() if wall is None else wall) * 1000)
        high = ms << 16 | self._version
        if high > self._high:
            self._high = high
        else:
            high = self._high
        return _HALVES.pack(high, next(self._count))  # type: ignore[return-value]

    def several(self, count: int, wall: float) -> list[MessageId]:
        """The next so many ids, made at one time: a third of the cost of each."""
        high = self._high = max(self._high, int(wall * 1000) << 16 | self._version)
        numbers = itertools.islice(self._count, count)
        return list(map(_HALVES.pack, itertools.repeat(high), numbers))  # type: ignore[arg-type]


# To ask for the process's number with each id would be a third of its cost. The set is weak: it keeps no maker alive.
_makers: "weakref.WeakSet[IdMaker]" = weakref.WeakSet()


def _begin_anew_in_child() -> None:
    for maker in list(_makers):
        maker.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_in_child)
