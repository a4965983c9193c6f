"""Where messages stand: by their ids, and behind what rises.

Owns the look-up of ids, in the index and among those that rise (`engine.rising`), and the milestones of queues. Must
not know why anybody looks.

A message comes to the end of its queue, leaves from anywhere, and keeps its number where it moves to another queue. So
a milestone is of no use once nothing is left between it and the one before. That is looked at whenever new ones come,
and among those that consumers have passed: a backlog is not read for it.
"""

from collections.abc import Iterable
from typing import Any

from dropr_storage_sqlite.engine.bulk import insert
from dropr_storage_sqlite.engine.rising import LISTED, RISING, SPACING, Rise, is_timed
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.inbox import sql

QueueEnd = tuple[int | None, bytes | None, bytes | None, int | None]
"""Place and id of a queue's last milestone; id and flags of its last message, if that stands behind it."""
LOOKS = 3
"""Milestones that are looked at for each new one, so that those of no use are never many more than the others."""


def find_rows(connection: Connection, ids: Iterable[bytes]) -> list[tuple[Any, ...]]:
    """The messages with these ids, as `rows.MessageRow`, in no order. Costs a look-up for each, and for an id that
    rises one in each queue.
    """
    found = []
    for one in dict.fromkeys(ids):
        found += connection.execute(sql.BY_ID, (one,)).fetchall()
        if is_timed(one):
            found += connection.execute(sql.BY_ORDER, (one,)).fetchall()
    return found


def find_same(connection: Connection, queue: int, rise: Rise, identity: bytes, envelope: bytes) -> int | None:
    """The place of this very message, if it has not failed: in its queue, or where its rank moved it (it is listed)."""
    found = connection.execute(sql.SAME, (identity, envelope)).fetchall()
    if not found and is_timed(identity) and identity <= rise.top:
        found = connection.execute(sql.SAME_IN_ORDER, (identity, envelope, queue)).fetchall()
    return found[0][0] if found else None


def rise_of(connection: Connection, queue: int, end: QueueEnd, last: int, first: bytes) -> Rise:
    """Where what rises in a queue goes on. ``last``: the number given last, in any queue; ``first``: the id to come."""
    if queue > RISING:
        return Rise(LISTED, sql.MASK)
    stone, top, identity, flags = end
    base, top = stone or sql.pack(queue, 0), top or b""
    if identity is None or flags is None:
        if first <= top and not connection.execute(sql.ANY_PLACE, (sql.pack(queue, 0), base)).fetchall():
            # Nothing is left of what has ids above it: an empty queue begins anew.
            connection.execute(sql.CLEAR_QUEUE, (sql.pack(queue, 0), base))
            top = b""
        return Rise(top, SPACING)
    highest = sql.pack(queue, sql.MASK)
    if not flags & sql.APART:
        top = identity
    else:
        for (identity,) in connection.execute(sql.LAST_IN_ORDER, (base, highest)).fetchall():
            top = identity
    count = last - (base & sql.MASK)  # at most: what other queues got since is among them
    if count >= SPACING:
        ((count,),) = connection.execute(sql.COUNT_TO, (base, highest, SPACING)).fetchall()
    return Rise(top, SPACING - count)


def set_milestones(connection: Connection, queue: int, frontier: int, rise: Rise) -> None:
    """Those of what was just put into a queue, and some fewer of before."""
    if not rise.stones:
        return
    insert(connection, sql.MILESTONE, rise.stones)
    origin, count = sql.pack(queue, 0), LOOKS * len(rise.stones) + 1
    ((swept, ahead),) = connection.execute(sql.SWEPT, (queue,)).fetchall()
    if ahead is None or ahead & sql.PARKED:  # nobody passes what is parked: nothing else need be left behind it
        frontier = sql.MASK
    looked = connection.execute(sql.NEXT_MILESTONES, (origin + swept, origin + frontier, count)).fetchall()
    if looked:
        connection.execute(sql.CLEAR, (origin + swept, looked[-1][0]))
    swept_now = looked[-1][0] - origin if len(looked) == count else 0
    if swept_now != swept:
        connection.execute(sql.SET_SWEPT, (swept_now, queue))
    rise.stones = []


def mark_place(connection: Connection, place: int) -> None:
    """To be called before a message moves into the middle of what rises: a look-up does not walk over several."""
    queue, _ = sql.unpack(place)
    if queue > RISING:
        return
    base, top = sql.pack(queue, 0), b""
    for stone, identity in connection.execute(sql.LAST_MILESTONE, (base, place)).fetchall():
        base, top = stone, identity
    for (identity,) in connection.execute(sql.LAST_IN_ORDER, (base, place)).fetchall():
        top = identity
    connection.execute(sql.MARK, (place, top))
