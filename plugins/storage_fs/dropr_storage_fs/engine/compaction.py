"""Old messages that are still needed, in segments of which nothing else is.

Owns copying them to the end of their log, so that a few of them never keep a large file. The copies are on stable
storage before anything points at them, and the old file goes only after that is on stable storage, too. Must not know
why a message is still needed.
"""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files import layout
from dropr_storage_fs.files.log import Log
from dropr_storage_fs.files.log_recovery import Place

SHARE = 4
"""A segment is given up when less than one part in so many of it is needed."""
MOST = 8 << 20
"""Bytes that one call copies at most of each log."""


class Pinned(NamedTuple):
    """One message that keeps a segment."""

    number: int
    sequence: int
    at: Place


def pinned(log: Log, passed: int, kept: Iterable[tuple[int, Place, int]]) -> list[Pinned]:
    """The messages of the first segment that is behind ``passed`` and mostly unneeded. ``kept``: (sequence, place,
    bytes) of all that is needed.
    """
    names = log.segments()
    closed = [name for name, following in itertools.pairwise(names) if following <= passed + 1]
    if not closed:
        return []
    where: dict[int, list[tuple[int, Place, int]]] = {}
    for one in kept:
        where.setdefault(one[1].segment, []).append(one)
    for segment in closed:
        mine = where.get(segment, [])
        size = sum(one[2] + layout.RECORD_SIZE for one in mine)
        if mine and size < min(MOST, log.size(segment) // SHARE):
            return [Pinned(log.number, sequence, at) for sequence, at, _ in sorted(mine)]
    return []


def move(half: Half, rows: list[Pinned]) -> None:
    """Copy these messages to the end of their logs, and note where they stand now. Durable."""
    if not rows:
        return

    def copy(commit: Commit) -> list[tuple[Pinned, Place]]:
        out: list[tuple[Pinned, Place]] = []
        for number in {row.number for row in rows}:
            mine = [row for row in rows if row.number == number]
            found = [(row, half.log(number).record_at(row.at)) for row in mine]
            out += commit.copy(number, [(row, record) for row, record in found if record is not None])
        return out

    copies = half.durable(copy)

    def note(commit: Commit) -> None:
        for row, place in copies:
            commit.do(["moved", row.number, row.sequence, *place])

    half.durable(note)
