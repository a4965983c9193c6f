"""Ids that rise with the places of their rows, and so need no index.

Owns the rules that both halves share: which ids are found by their order, and how far apart milestones stand. Must not
know tables.

Messages get rising ids (UUIDs of version 7), and mostly come in that order: of the rows that do, one in so many, a
milestone, says where to look for an id. The others are listed: a flag brings them into a partial index. A milestone
is a place and an id: rows that rise have ids up to it at or below its place, and higher ones above it.

All of this is part of the format (`schema`): whoever changes `SPACING`, `RISING` or what a rising id is makes a new
version of it, and writes the old values into the step that used them.
"""

# ruff: noqa: S608 -- statements are put together from names of this package only

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import lt

SPACING = 64
"""Places between two milestones: so many rows a look-up reads at most, in each lane or queue."""
RISING = 256
"""Lanes and queues with a higher number list every message: a look-up asks each of the others."""
LISTED = b"\xff" * 17
"""The top of those: no id is above it."""
_VERSION = bytes(range(0x70, 0x80))
TIMED = "hex(substr({0}, 7, 1)) BETWEEN '70' AND '7F'"
"""`is_timed` in SQL."""


def is_timed(identity: bytes) -> bool:
    """Whether it is a UUID of version 7. Others are always listed: nobody looks for them among those that rise."""
    return identity[6:7] in _VERSION and len(identity) == 16


def do_rise(ids: Sequence[bytes]) -> bool:
    """Whether all of them are UUIDs of version 7, and each is above the one before it."""
    return not b"".join(ids)[6::16].translate(None, _VERSION) and all(map(lt, ids, itertools.islice(ids, 1, None)))


def apart_of(ids: Sequence[bytes], top: bytes) -> int | None:
    """How many of them, the first ones, are not above ``top``; None if they do not rise among themselves."""
    return bisect_right(ids, top) if do_rise(ids) else None


class Rise:
    """Where what rises goes on, and rows that are put behind it."""

    def __init__(self, top: bytes, left: int) -> None:
        """``top``: what rises has a higher id. ``left``: places to the next milestone."""
        self.top, self.left, self.stones = top, max(1, left), list[tuple[int, bytes]]()

    def add(self, place: int, identity: bytes) -> bool:
        """Whether the next row rises; the others are listed."""
        rises = identity > self.top and identity[6:7] in _VERSION and len(identity) == 16  # `is_timed`, without a call
        if rises:
            self.top = identity
        self.left -= 1
        if self.left <= 0:
            self.stones.append((place, self.top))
            self.left = SPACING
        return rises

    def add_all(self, first: int, ids: Sequence[bytes]) -> int | None:
        """Rows from a place on: how many of them, the first ones, do not rise. None, and nothing done, if the ids do
        not rise among themselves: then each is added by itself.
        """
        apart = apart_of(ids, self.top)
        if apart is not None:
            self.stones += milestones(first, [*[self.top] * apart, *ids[apart:]] if apart else ids, self.left)
            self.left = SPACING - (len(ids) - self.left) % SPACING if len(ids) >= self.left else self.left - len(ids)
            self.top = self.top if apart == len(ids) else ids[-1]
        return apart


def stones_around(table: str, bits: int) -> tuple[str, str]:
    """SQL for the places between which the id ``?1`` may stand among what rises, for a row of the table of lanes or
    queues; NULL: no milestone is there.
    """
    stone = f"(SELECT m.place FROM milestone AS m WHERE m.place >> {bits} = +{table}.{table} AND m.id "
    return f"{stone}< ?1 ORDER BY m.id DESC, m.place DESC LIMIT 1)", f"{stone}>= ?1 ORDER BY m.id, m.place LIMIT 1)"


def milestones(first: int, ids: Sequence[bytes], left: int) -> Iterator[tuple[int, bytes]]:
    """Those of rows that rise from a place on. ``left``: how many places were left to the next one."""
    for index in range(max(0, left - 1), len(ids), SPACING):
        yield first + index, ids[index]
