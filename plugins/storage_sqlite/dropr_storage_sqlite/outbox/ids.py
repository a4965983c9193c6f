"""Where deliveries stand: by their ids, and where new ones go.

Owns the look-up of ids, in the index and among those that rise (`engine.rising`), and `End`, where a lane goes on. Must
not know why anybody looks.
"""

from collections.abc import Iterable
from typing import NamedTuple

from dropr_core.errors import StoreError
from dropr_core.model.names import MessageId
from dropr_storage_sqlite.engine.rising import LISTED, RISING, SPACING, is_timed
from dropr_storage_sqlite.engine.sqltypes import Connection
from dropr_storage_sqlite.outbox import sql
from dropr_storage_sqlite.outbox.rows import Row


class End(NamedTuple):
    """Where a lane goes on."""

    number: int
    """The lane's."""
    last: int
    """The last sequence given."""
    total: int
    """Bytes ever appended."""
    top: bytes
    """What rises behind it has a higher id."""
    left: int
    """Places to the next milestone."""


def find_rows(connection: Connection, ids: Iterable[MessageId]) -> list[Row]:
    """The live deliveries of these messages. Costs a look-up for each id, and for one that rises one in each lane."""
    found = []
    for one in dict.fromkeys(ids):
        found += connection.execute(sql.BY_ID, (one,)).fetchall()
        if is_timed(one):
            found += connection.execute(sql.BY_ORDER, (one,)).fetchall()
    return list(map(Row._make, found))


def end_of(connection: Connection, key: tuple[str, str, int], count: int) -> End:
    """Where a lane ends, which is made if there is none; room for ``count`` more."""
    found = connection.execute(sql.END_OF, key).fetchall()
    if not found:
        number = connection.execute(sql.NEW_LANE, key).fetchall()[0][0]
        if number > sql.MAX_LANE:
            raise StoreError(f"more than {sql.MAX_LANE} lanes: use fewer channels")
        found = [(number, 0, 0, 0, None, None)]
    end = _end(connection, *found[0])
    if end.last + count >= sql.HALF:
        raise StoreError(f"lane {key} has run out of numbers")
    return end


def mark_end(connection: Connection, number: int, coming: int = 0) -> None:
    """To be called before so many deliveries come to a lane that do not rise, and after them: nobody walks them."""
    (found,) = connection.execute(sql.END_OF_NUMBER, (number,)).fetchall()
    end = _end(connection, *found)
    if end.left <= coming and end.left < SPACING:
        connection.execute(sql.MILESTONE, (sql.origin(number) + end.last, end.top))


def _end(
    connection: Connection, number: int, last: int, total: int, floor: int, tail: bytes | None, flags: int | None
) -> End:
    """``tail``, ``flags``: those of its last delivery, if the lane's row does not know of it yet."""
    if number > RISING:
        return End(number, last, total, LISTED, sql.HALF)
    first = sql.origin(number)
    base, top, between = first + floor, b"", (first + floor, sql.highest(number))
    for place, identity in connection.execute(sql.LAST_MILESTONE, between).fetchall():
        base, top, between = place, identity, (place, sql.highest(number))
    if tail is not None and flags is not None and not flags & sql.UNORDERED:
        top = tail
    else:
        for (identity,) in connection.execute(sql.LAST_IN_ORDER, between).fetchall():
            top = identity
    return End(number, last, total, top, SPACING - (first + last - base))
